"use strict";
(() => {
  const table = document.getElementById("cases");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const details = JSON.parse(document.getElementById("details").textContent);
  for (const each of document.querySelectorAll(".js")) each.classList.remove("js");

  // A picture is decoded when its row comes into view.
  const source = row => {
    const image = details[row.dataset.n].image;
    return image ? "data:image/webp;base64," + image : "";
  };
  const visible = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      const image = entry.target.querySelector("img");
      if (image && !image.src) {
        image.src = source(entry.target);
        image.alt = "Mask of " + entry.target.dataset.case + " in three planes";
      }
      visible.unobserve(entry.target);
    }
  }, { rootMargin: "300px" });
  for (const row of rows) {
    if (!source(row)) continue;
    const image = document.createElement("img");
    image.className = "small";
    image.alt = "";
    image.decoding = "async";
    // Its place is kept free, or a click would hit the row that moves under the pointer.
    const size = details[row.dataset.n].size;
    if (size) image.style.aspectRatio = size.join(" / ");
    row.querySelector(".picture").append(image);
    visible.observe(row);
  }

  const heads = [...table.tHead.rows[1].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent.trim().toLowerCase() : parseFloat(cell.dataset.v);
  };
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      rows.sort((a, b) => {
        const x = value(a, column), y = value(b, column);
        // Unknown numbers stay at the end in either direction.
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return sign * (x < y ? -1 : x > y ? 1 : 0);
      });
      body.append(...rows);
    });
  });

  const text = document.getElementById("text"), kind = document.getElementById("kind");
  const count = document.getElementById("count");
  const filter = () => {
    let shown = 0;
    for (const row of rows) {
      const fits = row.textContent.toLowerCase().includes(text.value.toLowerCase());
      const wanted = kind.value === "all" || row.dataset.kind === kind.value;
      row.hidden = !(fits && wanted);
      shown += !row.hidden;
    }
    count.textContent = shown + " of " + rows.length + " shown";
  };
  text.addEventListener("input", filter);
  kind.addEventListener("change", filter);
  filter();

  const dialog = document.getElementById("case");
  const part = selector => dialog.querySelector(selector);
  const add = (parent, kind, text, name) => {
    const made = document.createElement(kind);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    parent.append(made);
    return made;
  };
  const uri = image => "data:image/webp;base64," + image;
  const words = slice => "slice " + slice.number + " of " + slice.of + ", z " + slice.mm + " mm";
  const name = row => row.dataset.case + (row.dataset.model ? " " + row.dataset.model : "");
  let slices = [];

  const scroll = at => {
    if (!slices.length) return;
    const number = Math.min(Math.max(at, 0), slices.length - 1), shown = slices[number];
    part("#single").hidden = false;
    part("#montage").hidden = true;
    part("#slice").value = number;
    part("#single img").src = uri(shown.image);
    part("#single img").alt = words(shown);
    part("#where").textContent = words(shown);
  };
  const scrolling = () => !part("#single").hidden;
  const montage = () => {
    part("#single").hidden = true;
    part("#montage").hidden = !slices.length;
  };
  const setAddress = text => {
    try { history.replaceState(null, "", text); } catch { /* closed to a frame, as in JupyterLab */ }
  };
  // Where a case lies among all of its model: a line for each, a mark for this one; nothing if there is nothing to compare.
  const firstNumber = heads.findIndex(head => head.classList.contains("number"));
  const strip = (row, column) => {
    const at = each => parseFloat(each.cells[firstNumber + column].dataset.v);
    const alike = rows.filter(each => each.dataset.model === row.dataset.model);
    const all = alike.map(at).filter(Number.isFinite).sort((a, b) => a - b), own = at(row);
    const low = all[0], high = all[all.length - 1];
    if (all.length < 3 || low === high) return null;
    const x = value => (4 + 112 * (value - low) / (high - low)).toFixed(1);
    const some = all.filter((_, number) => number % Math.ceil(all.length / 200) === 0);
    const lower = all.filter(value => value < own).length;
    const box = document.createElement("span");
    box.className = "strip";
    box.title = lower + " of " + (all.length - 1) + " other cases are lower";
    box.innerHTML = "<svg viewBox='0 0 120 14' role='img' aria-label='" + box.title + "'><path d='"
      + some.map(value => "M" + x(value) + " 3V11").join("") + "'/><circle cx='" + x(own) + "' cy='7' r='4'/></svg>";
    return box;
  };
  const count_by_label = numbers => {
    const labels = new Map();
    for (const [label, name, text, unit, column] of numbers) {
      if (!labels.has(label)) labels.set(label, []);
      labels.get(label).push([name, text + (unit ? " " + unit : ""), column]);
    }
    return labels;
  };
  const show = row => {
    const detail = details[row.dataset.n], shown = rows.filter(each => !each.hidden);
    slices = detail.slices || [];
    part("h2").textContent = row.dataset.case;
    part(".model").textContent = row.dataset.model;
    part("#at").textContent = shown.indexOf(row) + 1 + " of " + shown.length;
    part("#previous").disabled = shown[0] === row;
    part("#next").disabled = shown[shown.length - 1] === row;
    part(".reasons").replaceChildren();
    for (const text of detail.reasons) add(part(".reasons"), "li", text);
    part(".copy").hidden = !row.dataset.command;
    part("#command").textContent = row.dataset.command;
    part("#copy").textContent = "Copy";
    part(".place").hidden = !row.dataset.place;
    part(".place code").textContent = row.dataset.place;
    const planes = part("img.planes");
    planes.hidden = !detail.image;
    if (detail.image) planes.src = uri(detail.image);
    planes.alt = "Mask of " + row.dataset.case + " in three planes";
    part("#slice").max = Math.max(slices.length - 1, 0);
    part("#montage").replaceChildren();
    slices.forEach((slice, number) => {
      const tile = add(part("#montage"), "button");
      tile.type = "button";
      const image = add(tile, "img");
      image.src = uri(slice.image);
      image.alt = "";
      image.decoding = "async";
      add(tile, "span", words(slice));
      tile.addEventListener("click", () => { scroll(number); part("#slice").focus(); });
    });
    montage();
    const lung = part("#lung");
    lung.hidden = !detail.lung;
    lung.innerHTML = detail.lung ? detail.lung.charts : ""; // charts are made by medseg, with all text escaped
    if (detail.lung) {
      const box = document.createElement("figure"), image = add(box, "img");
      image.src = uri(detail.lung.image);
      image.alt = "Lungs of " + row.dataset.case + ", " + detail.lung.caption;
      add(box, "figcaption", detail.lung.caption);
      lung.prepend(box);
    }
    part("#numbers").replaceChildren();
    for (const [label, values] of count_by_label(detail.numbers)) {
      const box = add(part("#numbers"), "table"), body = add(box, "tbody");
      add(box, "caption", label || "others");
      for (const [name, text, column] of values) {
        const line = add(body, "tr"), among = strip(row, column);
        add(line, "th", name).scope = "row";
        const place = add(line, "td");
        if (among) place.append(among);
        add(line, "td", text, "number");
      }
    }
    dialog.dataset.n = row.dataset.n;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    setAddress("#case=" + encodeURIComponent(name(row))); // an address to send to others
  };
  dialog.addEventListener("close", () => setAddress(location.pathname + location.search));
  const linked = rows.find(row => location.hash === "#case=" + encodeURIComponent(name(row)));
  if (linked) show(linked);
  const step = by => {
    const shown = rows.filter(row => !row.hidden);
    const next = shown[shown.findIndex(row => row.dataset.n === dialog.dataset.n) + by];
    if (next) show(next);
  };
  body.addEventListener("click", event => {
    const row = event.target.closest("tr");
    if (row && event.target.closest("button, img")) show(row);
  });
  part("#previous").addEventListener("click", () => step(-1));
  part("#next").addEventListener("click", () => step(1));
  part("#all").addEventListener("click", montage);
  part("#slice").addEventListener("input", event => scroll(Number(event.target.value)));
  part("#single img").addEventListener("wheel", event => {
    scroll(Number(part("#slice").value) + Math.sign(event.deltaY));
    event.preventDefault();
  }, { passive: false });
  part("#copy").addEventListener("click", () => {
    const range = document.createRange();
    range.selectNodeContents(part("#command"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    // The clipboard of navigator is closed to pages from the disk in some browsers.
    part("#copy").textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl-C";
  });
  dialog.addEventListener("keydown", event => {
    const cases = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const number = { ArrowDown: 1, ArrowUp: -1, PageDown: 1, PageUp: -1 }[event.key];
    if (cases) step(cases);
    else if (number && slices.length) scroll(scrolling() ? Number(part("#slice").value) + number : 0);
    else return;
    event.preventDefault();
  });
})();
