import { Niivue } from "./niivue.js";

const scene = await (await fetch("scene.json")).json();
const stage = document.getElementById("stage");
const shown = scene.masks.filter(mask => mask.name !== "difference");
const difference = scene.masks.find(mask => mask.name === "difference");
const hidden = new Set();
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
    onLocationChange: place => { document.getElementById("place").textContent = place.string; },
  });
  await view.attachToCanvas(canvas);
  const volumes = [{ url: here("scan.nii"), name: "scan.nii", colormap: "gray", cal_min: low, cal_max: high }];
  if (mask) volumes.push({ url: here(mask.file), name: mask.file, opacity });
  if (difference) volumes.push({ url: here(difference.file), name: difference.file, opacity: 0 });
  await view.loadVolumes(volumes);
  panels.push({ view, mask });
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
const names = new Map(scene.masks.flatMap(mask => mask.labels.map(label => [label.name, { ...label, mask: mask.name }])));
for (const [name, label] of names) {
  const box = document.createElement("label"), tick = document.createElement("input"), mark = document.createElement("b");
  tick.type = "checkbox";
  tick.checked = true;
  mark.textContent = "■ ";
  mark.style.color = label.colour;
  const ml = panels.length < 2 ? ` ${label.ml} ml` : "";
  box.append(tick, mark, name.replaceAll("_", " ") + ml);
  tick.addEventListener("change", () => {
    if (tick.checked) hidden.delete(name); else hidden.add(name);
    paint();
  });
  document.getElementById("labels").append(box);
}
for (const [name, [dark, bright]] of Object.entries(scene.presets)) {
  const button = document.createElement("button");
  button.textContent = name;
  button.addEventListener("click", () => {
    for (const { view } of panels) {
      view.volumes[0].cal_min = dark;
      view.volumes[0].cal_max = bright;
      view.updateGLVolume();
    }
  });
  document.getElementById("presets").append(button);
}
for (const choice of document.getElementsByName("view")) choice.addEventListener("change", () => {
  for (const { view } of panels) view.setSliceType(Number(choice.value));
});
paint();
document.body.dataset.ready = "yes";
