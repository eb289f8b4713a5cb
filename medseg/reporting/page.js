"use strict";
(() => {
  const table = document.getElementById("cases");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const pictures = JSON.parse(document.getElementById("pictures").textContent);
  for (const part of document.querySelectorAll(".js")) part.classList.remove("js");

  // A picture is decoded when its row comes into view.
  const source = row => pictures[row.dataset.n] ? "data:image/webp;base64," + pictures[row.dataset.n] : "";
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
    row.querySelector(".picture").append(image);
    visible.observe(row);
  }

  const heads = [...table.tHead.rows[0].cells];
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
  const show = row => {
    dialog.querySelector("h2").textContent = row.dataset.case;
    const image = dialog.querySelector("img");
    image.hidden = !source(row);
    if (source(row)) image.src = source(row);
    image.alt = "Mask of " + row.dataset.case + " in three planes";
    const list = dialog.querySelector("dl");
    list.replaceChildren();
    heads.forEach((head, column) => {
      const text = row.cells[column].textContent.trim();
      if (!text || column === 0) return;
      const name = document.createElement("dt"), detail = document.createElement("dd");
      name.textContent = head.textContent;
      detail.textContent = text;
      list.append(name, detail);
    });
    for (const [title, text] of [["scan", row.dataset.place], ["open it with", row.dataset.command]]) {
      if (!text) continue;
      const name = document.createElement("dt"), detail = document.createElement("dd");
      const code = document.createElement("code");
      name.textContent = title;
      code.textContent = text;
      detail.append(code);
      list.append(name, detail);
    }
    dialog.dataset.n = row.dataset.n;
    if (!dialog.open) dialog.showModal();
  };
  body.addEventListener("click", event => {
    const row = event.target.closest("tr");
    if (row && event.target.closest("button, img")) show(row);
  });
  dialog.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const shown = rows.filter(row => !row.hidden);
    const next = shown[shown.findIndex(row => row.dataset.n === dialog.dataset.n) + step];
    if (next) show(next);
    event.preventDefault();
  });
})();
