const at = id => document.getElementById(id);
const status = at("status"), bar = at("bar"), drop = at("drop"), viewer = at("viewer");
let session = "", busy = false;

const say = (text, wrong = false) => {
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
};
const show = (done, total) => {
  bar.hidden = false;
  if (total) bar.value = done / total; else bar.removeAttribute("value");
};
const answer = async response => {
  const facts = await response.json();
  if (!response.ok) throw new Error([facts.detail, facts.remedy].filter(Boolean).join(": "));
  return facts;
};

const info = await answer(await fetch("info/"));
for (const name of Object.keys(info.models)) at("model").append(new Option(name, name));

// fetch does not say how much of a body was sent.
const upload = files => new Promise((resolve, reject) => {
  const form = new FormData(), request = new XMLHttpRequest();
  for (const file of files) form.append("files", file, file.name);
  request.upload.onprogress = event => show(event.loaded, event.lengthComputable ? event.total : 0);
  request.onload = () => resolve(new Response(request.response, { status: request.status }));
  request.onerror = () => reject(new Error("the server does not answer"));
  request.open("PUT", "session/");
  request.send(form);
});

const end = async () => {
  const name = session;
  session = "";
  viewer.hidden = at("download").hidden = at("end").hidden = true;
  viewer.removeAttribute("src");
  at("warnings").replaceChildren();
  if (name) await fetch(`session/${name}`, { method: "DELETE", keepalive: true });
};

const follow = async (name, isDone) => {
  while (!isDone()) {
    await new Promise(wake => setTimeout(wake, 500));
    if (isDone()) return;
    const response = await fetch(`session/${name}`);
    if (!response.ok || isDone()) return;
    const { stage, done, total } = await response.json();
    say(stage || "waiting for the device");
    show(done, total);
  }
};

const segment = async files => {
  if (busy || !files.length) return;
  busy = true;
  document.body.dataset.state = "busy";
  let done = false;
  try {
    await end();
    say("sending the scan");
    session = (await answer(await upload(files))).session_id;
    say("waiting for the device");
    show(0, 0);
    const made = fetch(`session/${session}/view?model=${encodeURIComponent(at("model").value)}`, { method: "POST" });
    const settled = made.finally(() => { done = true; });
    const [facts] = await Promise.all([settled.then(answer), follow(session, () => done)]);
    const volumes = Object.entries(facts.volumes_ml).map(([name, ml]) => `${name.replaceAll("_", " ")} ${ml.toFixed(1)} ml`);
    say(volumes.join(", ") + (facts.viewer ? "" : `. ${facts.no_viewer}`));
    for (const text of facts.warnings) {
      const line = document.createElement("li");
      line.textContent = text;
      at("warnings").append(line);
    }
    at("download").href = `session/${session}/view/mask.nii.gz`;
    at("download").hidden = at("end").hidden = false;
    if (facts.viewer) {
      viewer.src = `session/${session}/view/page.html`;
      viewer.hidden = false;
    }
    document.body.dataset.state = "done";
  } catch (error) {
    await end().catch(() => {});
    say(error.message, true);
    document.body.dataset.state = "failed";
  } finally {
    done = true;
    busy = false;
    bar.hidden = true;
  }
};

// All files below what was dropped; hidden ones are those of the system.
const below = async entry => {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader(), found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    for (const each of some) found.push(...await below(each));
  }
  return found;
};
const seen = files => [...files].filter(file => !file.name.startsWith("."));

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) document.addEventListener(kind, event => {
  event.preventDefault();
  drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
});
document.addEventListener("drop", async event => {
  const items = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = items.length ? (await Promise.all(items.map(below))).flat() : event.dataTransfer.files;
  segment(seen(files));
});
for (const id of ["file", "folder"]) at(id).addEventListener("change", event => {
  segment(seen(event.target.files)).finally(() => { event.target.value = ""; });
});
at("end").addEventListener("click", () => end().then(() => say("the scan was removed")));
addEventListener("pagehide", () => { end(); });
document.body.dataset.state = "ready";
