const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const COLOURS = 8;

// ---- elements ----

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  return filled(element, attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function unique(values) {
  return [...new Set(values)];
}

const isNumber = (text) => text !== null && text !== undefined && String(text).trim() !== "" && Number.isFinite(Number(text));

function ordered(values) {
  return unique(values).sort((a, b) => {
    if (isNumber(a) && isNumber(b)) return Number(a) - Number(b);
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  });
}

// ---- tables ----

function sortRows(table, index, direction) {
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => {
    const cell = row.cells[index];
    const missing = cell.textContent === "-";
    return { row, missing, value: cell.dataset.value === undefined ? null : Number(cell.dataset.value), text: cell.textContent };
  });
  keyed.sort((a, b) => {
    if (a.missing !== b.missing) return a.missing ? 1 : -1;  // what is missing stands last, whichever way
    const both = a.value !== null && b.value !== null;
    const order = both ? a.value - b.value : a.text.localeCompare(b.text, undefined, { numeric: true });
    return direction * order;
  });
  body.append(...keyed.map((each) => each.row));
}

function enableSheet(sheet) {
  const table = sheet.querySelector("table");
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => {
    const falling = head.classList.contains("number");  // of numbers the largest are wanted first
    const before = head.getAttribute("aria-sort");
    const next = before === null ? (falling ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", next);
    sortRows(table, index, next === "ascending" ? 1 : -1);
  }));
  const words = sheet.querySelector("input");
  const selects = [...sheet.querySelectorAll("select")];
  const count = sheet.querySelector(".count");
  const rows = [...table.tBodies[0].rows];
  const names = heads.map((head) => head.textContent.trim());
  const update = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = wanted.every((word) => text.includes(word)) && selects.every((select) => {
        const cell = row.cells[names.indexOf(select.dataset.head)];
        return select.value === "" || cell.textContent === select.value || cell.textContent === "-";
      });
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
  };
  [words, ...selects].forEach((input) => input.addEventListener("input", update));
  update();
}

document.querySelectorAll(".sheet").forEach(enableSheet);

// ---- commands ----

document.querySelectorAll("pre.code").forEach((block) => {
  const text = block.textContent;
  block.append(make("button", {
    type: "button",
    onclick: async (event) => {
      const button = event.target;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(block.querySelector("code"));
        button.textContent = "selected";
      }
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    },
  }, "copy"));
});
