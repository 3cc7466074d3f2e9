"use strict";
// Tables are sorted by a button in each head: by the cells' data-value where they have one, what is missing always last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim();
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const number = head.classList.contains("number");
      const compare = (one, other) => {
        const [a, b] = [value(one, column), value(other, column)];
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = number ? a - b : a.localeCompare(b);
        return down ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}
// A figure that a small screen shrinks can be seen in its own size.
for (const figure of document.querySelectorAll("figure.plot")) {
  const button = document.createElement("button");
  const tell = (large) => {
    button.textContent = large ? "Fit to the screen" : "Full size";
    button.setAttribute("aria-pressed", large);
  };
  button.type = "button";
  tell(false);
  button.addEventListener("click", () => tell(figure.classList.toggle("enlarged")));
  figure.append(button);
}
// One player at a time.
document.addEventListener("play", (event) => {
  for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
}, true);
// Paper shows what is folded.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
