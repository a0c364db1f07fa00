"use strict";
// Three planes of a scan, linked by a crosshair, with masks over them. NiiVue draws.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const canvas = byId("planes");
// Shades of one colour for the labels of one mask, so that two masks can be told apart.
const shades = {
  truth: [[86, 180, 233], [50, 130, 210], [190, 225, 245], [60, 170, 170], [150, 160, 235]],
  prediction: [[230, 159, 0], [213, 94, 0], [250, 215, 120], [240, 228, 66], [200, 120, 110]],
};
const state = { volume: 0, ready: false };
let viewer, volumes, masks;

function colorsOf(mask) {
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
  mask.labels.forEach((label, number) => {
    const [red, green, blue] = shades[mask.kind][number % 5];
    table.R.push(red);
    table.G.push(green);
    table.B.push(blue);
    table.A.push(255);
    table.I.push(label);
    table.labels.push(String(label));
  });
  return table;
}

async function load() {
  viewer = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.5, 0.9, 0.6, 0.8],
    isRadiologicalConvention: true,
    multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
    dragAndDropEnabled: false,
    isColorbar: false,
    loadingText: "",
    logLevel: "error",
  });
  viewer.onLocationChange = describe;
  await viewer.attachToCanvas(canvas);
  viewer.setSliceType(viewer.sliceTypeMultiplanar);
  volumes = [];
  for (const one of data.volumes)
    volumes.push(await niivue.NVImage.loadFromBase64({
      base64: one.nifti, name: "scan.nii.gz", colormap: "gray", cal_min: one.low, cal_max: one.high,
    }));
  masks = [];
  for (const one of data.masks) {
    const image = await niivue.NVImage.loadFromBase64({
      base64: one.nifti, name: "mask.nii.gz", opacity: 0.5,
    });
    image.hdr.intent_code = 1002; // NIFTI_INTENT_LABEL: NiiVue outlines labels alone
    image.setColormapLabel(colorsOf(one));
    masks.push(image);
  }
  show();
  viewer.scene.crosshairPos = viewer.mm2frac(data.start);
  viewer.createOnLocationChange();
  show();
  state.ready = true;
  canvas.dataset.ready = "yes";
}

function show() {
  viewer.volumes = [volumes[state.volume], ...masks];
  const boxes = byId("masks").querySelectorAll("input");
  masks.forEach((image, number) => {
    // Outlines are drawn in full; the area within keeps a hint of its colour.
    const opacity = Number(byId("opacity").value) * (byId("outline").checked ? 0.3 : 1);
    image.opacity = boxes[number].checked ? opacity : 0;
  });
  viewer.opts.atlasOutline = byId("outline").checked ? 1 : 0;
  viewer.setVolume(volumes[state.volume], 0); // makes it the background, and draws
  viewer.createOnLocationChange();
  const shown = data.masks.filter((_, number) => boxes[number].checked).map((one) => one.name);
  canvas.setAttribute("aria-label",
    [`${data.case}, ${data.volumes[state.volume].name}, three planes`, ...shown].join(", "));
}

function describe(location) {
  const [x, y, z] = location.mm;
  const values = location.values.map(({ value }, number) =>
    number ? `${data.masks[number - 1].name} ${value}`
      : `${data.volumes[state.volume].name} ${Number(value.toPrecision(4))}`);
  const [right, anterior, superior] = [x, y, z].map((value) => value.toFixed(1));
  byId("place").textContent =
    `x ${right}, y ${anterior}, z ${superior} mm (to the right, front, top): ${values.join(", ")}`;
}

function choose(number) {
  state.volume = number;
  byId("volumes").querySelectorAll("input")[number].checked = true;
  show();
}

function flip(kind) {
  const number = data.masks.findIndex((one) => one.kind === kind);
  if (number < 0) return;
  const box = byId("masks").querySelectorAll("input")[number];
  box.checked = !box.checked;
  show();
}

function addControls() {
  data.volumes.forEach((one, number) => {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "volume", checked: number === 0 });
    input.addEventListener("change", () => choose(number));
    label.append(input, one.name);
    byId("volumes").append(label);
  });
  for (const one of data.masks) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "checkbox", checked: true });
    input.addEventListener("change", show);
    label.append(input, one.name);
    one.labels.forEach((value, number) => {
      const chip = document.createElement("span");
      chip.className = "chip";
      chip.style.backgroundColor = `rgb(${shades[one.kind][number % 5].join(" ")})`;
      chip.textContent = value;
      label.append(chip);
    });
    byId("masks").append(label);
  }
  for (const id of ["masks", "opacity-row", "outline-row"]) byId(id).hidden = !data.masks.length;
  byId("outline").checked = data.masks.length > 1; // two areas of colour over each other are none
  byId("opacity").addEventListener("input", show);
  byId("outline").addEventListener("change", show);
}

const keys = {
  ArrowLeft: () => viewer.moveCrosshairInVox(1, 0, 0), // the patient's right is on the left
  ArrowRight: () => viewer.moveCrosshairInVox(-1, 0, 0),
  ArrowUp: () => viewer.moveCrosshairInVox(0, 1, 0),
  ArrowDown: () => viewer.moveCrosshairInVox(0, -1, 0),
  PageUp: () => viewer.moveCrosshairInVox(0, 0, 1),
  PageDown: () => viewer.moveCrosshairInVox(0, 0, -1),
  m: () => choose((state.volume + 1) % data.volumes.length),
  t: () => flip("truth"),
  p: () => flip("prediction"),
};

document.addEventListener("keydown", (event) => {
  const act = keys[event.key] ?? keys[event.key.toLowerCase()];
  if (!state.ready || !act || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input") && event.key.length > 1) return;
  event.preventDefault();
  event.stopPropagation(); // NiiVue has other meanings for some letters
  act();
}, true);

addControls();
load().catch((error) => {
  canvas.hidden = true;
  byId("place").textContent = `This browser cannot show the scan (it needs WebGL 2): ${error}`;
  throw error;
});
