import { Niivue } from "./niivue.js";

const scene = await (await fetch("scene.json")).json();
const stage = document.getElementById("stage");
const shown = scene.masks.filter(mask => mask.name !== "difference");
const difference = scene.masks.find(mask => mask.name === "difference");
const hidden = new Set();
const contour = document.getElementById("contour");
let opacity = 0.5;

const colours = mask => {
  const rgb = colour => [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
  const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["none"] };
  for (const label of mask.labels) {
    const [red, green, blue] = rgb(label.colour);
    map.R.push(red); map.G.push(green); map.B.push(blue);
    map.A.push(hidden.has(label.name) ? 0 : 255);
    map.I.push(label.value); map.labels.push(label.name);
  }
  return map;
};

// Axial, coronal and sagittal, as NiiVue counts: the axis across them, and their names.
let plane = 0;
const PLANES = ["axial", "coronal", "sagittal"];
const across = () => 2 - plane;
const place = document.getElementById("place");
const tell = (view, at) => {
  if (!view.volumes.length) return;
  const scan = view.volumes[0], vox = view.frac2vox(at), mm = view.frac2mm(at);
  const value = scan.getValue(vox[0], vox[1], vox[2]);
  const sides = ["RL", "AP", "SI"].map((letters, axis) => letters[mm[axis] >= 0 ? 0 : 1] + " " + Math.abs(mm[axis]).toFixed(1));
  place.textContent = `${Number(value.toPrecision(5))} ${scene.unit} · ${sides.join(" · ")} mm · ${PLANES[plane]} slice ${vox[across()] + 1} of ${scan.dimsRAS[across() + 1]}`;
};
const shownWindow = view => {
  const { cal_min, cal_max } = view.volumes[0];
  document.getElementById("level").value = Math.round((cal_min + cal_max) / 2);
  document.getElementById("width").value = Math.round(cal_max - cal_min);
  for (const other of panels.map(each => each.view).filter(each => each !== view)) {
    if (other.volumes[0].cal_min === cal_min && other.volumes[0].cal_max === cal_max) continue;
    Object.assign(other.volumes[0], { cal_min, cal_max });
    other.updateGLVolume();
  }
};

const here = name => new URL(name, location.href).href;
const [low, high] = Object.values(scene.presets)[0];
const panels = [];
for (const mask of shown.length ? shown : [null]) {
  const box = document.createElement("div"), head = document.createElement("h2");
  const canvas = document.createElement("canvas");
  head.textContent = shown.length > 1 ? mask.name : "";
  box.append(head, canvas);
  stage.append(box);
  const view = new Niivue({
    isRadiologicalConvention: true, backColor: [0.06, 0.08, 0.09, 1], show3Dcrosshair: true,
    dragAndDropEnabled: false, isColorbar: false, crosshairWidth: 0.6, multiplanarForceRender: true, multiplanarLayout: 2, sagittalNoseLeft: true,
    showAllOrientationMarkers: true, fontMinPx: 17, fontColor: [1, 1, 1, 1], dragMode: 9, dragModePrimary: 8,
    clipPlaneHotKey: "", cycleClipPlaneHotKey: "", viewModeHotKey: "", clipPlaneColor: [0, 0, 0, 0],
    onLocationChange: () => tell(view, view.scene.crosshairPos), onIntensityChange: () => shownWindow(view),
  });
  // The page has its own keys: NiiVue's would change what is seen behind the page's back.
  view.keyDownListener = view.keyUpListener = () => {};
  view.resetBriCon = () => {};
  const draw = view.drawText.bind(view);
  view.drawText = (at, text, scale, colour) => {
    for (const [x, y] of [[-1, -1], [1, -1], [-1, 1], [1, 1]]) draw([at[0] + x, at[1] + y], text, scale, [0, 0, 0, 1]);
    draw([...at], text, scale, colour);
  };
  await view.attachToCanvas(canvas);
  const volumes = [{ url: here("scan.nii"), name: "scan.nii", colormap: "gray", cal_min: low, cal_max: high }];
  if (mask) volumes.push({ url: here(mask.file), name: mask.file, opacity });
  if (difference) volumes.push({ url: here(difference.file), name: difference.file, opacity: 0 });
  await view.loadVolumes(volumes);
  for (const layer of view.volumes.slice(1)) layer.hdr.intent_code = 1002; // labels: they can have contours
  view.setClipPlane([-1, 0, 90]); // in 3D, all of the scan is cut away: only masks are seen
  view.moveCrosshairInVox(0, 0, 0); // to the middle of a voxel
  panels.push({ view, mask });
  // NiiVue does not say when a drag changes the window.
  for (const kind of ["pointermove", "pointerup"]) canvas.addEventListener(kind, () => setTimeout(shownWindow, 0, view));
  canvas.addEventListener("pointermove", event => {
    const box = canvas.getBoundingClientRect(), scale = view.uiData.dpr || 1;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale, tile = view.tileIndex(x, y);
    if (tile < 0) return;
    const across = view.screenSlices[tile].axCorSag, at = across > 2 ? null : view.canvasPos2frac([x, y]);
    if (at && at[0] >= 0) {
      plane = across;
      tell(view, at);
    }
  });
}
if (panels.length === 2) {
  panels[0].view.broadcastTo([panels[1].view], { "2d": true, "3d": true });
  panels[1].view.broadcastTo([panels[0].view], { "2d": true, "3d": true });
}

const differ = document.getElementById("differ");
const paint = () => {
  const apart = differ.querySelector("input").checked;
  for (const { view, mask } of panels) {
    const layers = [mask, difference].filter(Boolean);
    layers.forEach((layer, number) => {
      view.volumes[number + 1].setColormapLabel(colours(layer));
      view.setOpacity(number + 1, layer === difference ? (apart ? opacity : 0) : apart ? 0 : opacity);
    });
    view.updateGLVolume();
  }
};
differ.hidden = !difference;
differ.addEventListener("change", paint);
document.getElementById("opacity").addEventListener("input", event => {
  opacity = Number(event.target.value);
  paint();
});
const names = new Map();
for (const mask of scene.masks) for (const label of mask.labels) {
  const known = names.get(label.name) || { ...label, volumes: [] };
  known.volumes.push((panels.length > 1 && mask !== difference ? mask.name + " " : "") + Math.round(10 * label.ml) / 10 + " ml");
  names.set(label.name, known);
}
for (const [name, label] of names) {
  const box = document.createElement("label"), tick = document.createElement("input"), mark = document.createElement("b");
  tick.type = "checkbox";
  tick.checked = true;
  mark.textContent = "■ ";
  mark.style.color = label.colour;
  box.append(tick, mark, name.replaceAll("_", " ") + " " + label.volumes.join(", "));
  tick.addEventListener("change", () => {
    if (tick.checked) hidden.delete(name); else hidden.add(name);
    paint();
  });
  document.getElementById("labels").append(box);
}
const setWindow = (dark, bright) => {
  for (const { view } of panels) {
    Object.assign(view.volumes[0], { cal_min: dark, cal_max: bright });
    view.updateGLVolume();
  }
  shownWindow(panels[0].view);
};
for (const [name, [dark, bright]] of Object.entries(scene.presets)) {
  const button = document.createElement("button");
  button.textContent = name;
  button.addEventListener("click", () => setWindow(dark, bright));
  document.getElementById("presets").append(button);
}
for (const id of ["level", "width"]) document.getElementById(id).addEventListener("change", () => {
  const [level, width] = ["level", "width"].map(each => Number(document.getElementById(each).value));
  if (width > 0) setWindow(level - width / 2, level + width / 2);
});
const views = [...document.getElementsByName("view")], tools = [...document.getElementsByName("tool")];
const look = () => {
  const kind = Number(views.find(each => each.checked).value);
  if (kind < 3) plane = kind;
  for (const { view } of panels) view.setSliceType(kind);
  tell(panels[0].view, panels[0].view.scene.crosshairPos);
};
const hold = () => {
  for (const { view } of panels) view.opts.dragModePrimary = Number(tools.find(each => each.checked).value);
};
for (const [choices, act] of [[views, look], [tools, hold]]) for (const choice of choices) choice.addEventListener("change", () => {
  choice.blur(); // the arrow keys then move through slices
  act();
});
contour.addEventListener("change", () => {
  for (const { view } of panels) view.setAtlasOutline(contour.checked ? 1 : 0);
});
document.getElementById("screenshot").addEventListener("click", () => {
  panels.forEach(({ view }, number) => view.saveScene(panels.length > 1 ? `medseg-${number + 1}.png` : "medseg.png"));
});
document.getElementById("reset").addEventListener("click", () => {
  views[0].checked = tools[0].checked = true;
  plane = 0;
  for (const { view } of panels) {
    view.scene.crosshairPos = [0.5, 0.5, 0.5];
    view.moveCrosshairInVox(0, 0, 0);
    view.scene.pan2Dxyzmm = [0, 0, 0, 1];
    view.clearAllMeasurements();
    view.setScale(1);
    view.setRenderAzimuthElevation(110, 10);
  }
  hold();
  setWindow(low, high);
  look();
});
const step = by => {
  const move = [0, 0, 0];
  move[across()] = by;
  for (const { view } of panels) view.moveCrosshairInVox(...move);
  tell(panels[0].view, panels[0].view.scene.crosshairPos);
};
const STEPS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
document.addEventListener("keydown", event => {
  if (!(event.key in STEPS) || event.target.matches("input[type=number], input[type=range]") || event.ctrlKey || event.altKey || event.metaKey) return;
  step(STEPS[event.key]);
  event.preventDefault();
});
paint();
shownWindow(panels[0].view);
look();
window.medsegViews = panels.map(each => each.view);
document.body.dataset.ready = "yes";
