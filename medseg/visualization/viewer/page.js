import { addContours } from "./contours.js";
import { addLetters } from "./orientation_letters.js";

const scene = await (await fetch("scene.json")).json();
const stage = document.getElementById("stage");
const shown = scene.masks.filter(mask => mask.name !== "difference");
const difference = scene.masks.find(mask => mask.name === "difference");
const hidden = new Set();
const drawn = [...document.getElementsByName("drawn")];
const style = () => drawn.find(each => each.checked).value;
const differ = document.getElementById("differ");
const apart = () => differ.querySelector("input").checked;
const slider = document.getElementById("opacity");
const strength = { fill: 0.5, contour: 1, both: 0.5 }; // opacity; of "both", that of the fill

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
// Layers are opaque: how strong they are in the planes is decided when a plane is drawn, at once and without new textures.
const paintLayers = (view, mask) => [mask, difference].filter(Boolean).forEach((layer, number) => {
  view.volumes[number + 1].setColormapLabel(colours(layer));
  view.volumes[number + 1].opacity = (layer === difference) === apart() ? 1 : 0;
  view.overlayAlphaShader = style() === "contour" ? 0 : strength[style()];
});
// What is to have contours in a view: the layer, its colours, and their opacity.
const outlined = (view, mask) => {
  const layer = apart() ? difference : mask;
  if (!layer || style() === "fill") return null;
  const visible = layer.labels.filter(label => !hidden.has(label.name));
  return {
    layer: view.volumes[layer === mask ? 1 : 2], opacity: style() === "contour" ? strength.contour : 1,
    colours: new Map(visible.map(label => [label.value, label.colour])),
  };
};
const restyle = () => {
  slider.value = strength[style()];
  for (const { view } of panels) {
    view.overlayAlphaShader = style() === "contour" ? 0 : strength[style()];
    view.drawScene();
  }
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
const add = (parent, kind, values = {}) => parent.appendChild(Object.assign(document.createElement(kind), values));
const boxes = (shown.length ? shown : [null]).map((mask, number) => {
  const box = add(stage, "div");
  add(box, "h2", { textContent: shown.length > 1 ? mask.name : "" });
  return { box, mask, first: add(box, "img", { className: "first", src: here(scene.first[number]), alt: "three planes" }) };
});
// Pictures of three planes come before the viewer and the scan, which take a while without a graphics card.
place.textContent = "first look at the planes through the masks; loading the whole scan …";
await Promise.all(boxes.map(({ first }) => first.decode().catch(() => {})));  // without them the whole scan still comes
await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
performance.mark("first picture");
document.body.dataset.first = "yes";
const { Niivue } = await import("./niivue.js");
const panels = [];
for (const { box, mask, first } of boxes) {
  const canvas = add(box, "canvas"), over = add(box, "canvas", { className: "over" });
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
  addLetters(view, canvas);
  addContours(view, canvas, over, () => outlined(view, mask));
  await view.attachToCanvas(canvas);
  const volumes = [{ url: here("scan.nii"), name: "scan.nii", colormap: "gray", cal_min: low, cal_max: high }];
  if (mask) volumes.push({ url: here(mask.file), name: mask.file });
  if (difference) volumes.push({ url: here(difference.file), name: difference.file });
  // NiiVue computes all layers again for each one that is added; once is enough.
  const refresh = view.updateGLVolume.bind(view);
  view.updateGLVolume = () => {};
  await view.loadVolumes(volumes);
  view.updateGLVolume = refresh;
  paintLayers(view, mask);
  view.setSliceType(0);
  view.updateGLVolume();
  view.setClipPlane([-1, 0, 90]); // in 3D, all of the scan is cut away: only masks are seen
  view.moveCrosshairInVox(0, 0, 0); // to the middle of a voxel
  first.remove();
  panels.push({ view, mask, canvas, over });
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

const paint = () => {
  for (const { view, mask } of panels) {
    paintLayers(view, mask);
    view.updateGLVolume();
  }
};
differ.hidden = !difference;
differ.addEventListener("change", paint);
slider.addEventListener("input", () => {
  strength[style()] = Number(slider.value);
  restyle();
});
const names = new Map();
for (const mask of scene.masks) for (const label of mask.labels) {
  const known = names.get(label.name) || { ...label, volumes: [] };
  known.volumes.push((panels.length > 1 && mask !== difference ? mask.name + " " : "") + label.volume);
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
for (const [choices, act] of [[views, look], [tools, hold], [drawn, restyle]]) for (const choice of choices) choice.addEventListener("change", () => {
  choice.blur(); // the arrow keys then move through slices
  act();
});
document.getElementById("screenshot").addEventListener("click", () => {
  panels.forEach(({ view, canvas, over }, number) => {
    const whole = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    view.drawScene(); // what WebGL has drawn can be read only now
    for (const part of [canvas, over]) whole.getContext("2d").drawImage(part, 0, 0);
    whole.toBlob(picture => {
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(picture) });
      link.download = panels.length > 1 ? `medseg-${number + 1}.png` : "medseg.png";
      link.click();
    });
  });
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
shownWindow(panels[0].view);
look();
window.medsegViews = panels.map(each => each.view);
performance.mark("ready");
document.body.dataset.ready = "yes";
