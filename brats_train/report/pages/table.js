"use strict";
// A table that is sorted by its headings.

function sortBy(heading) {
  const table = heading.closest("table");
  const column = [...heading.parentElement.children].indexOf(heading);
  const isText = heading.dataset.kind === "text";
  const before = heading.getAttribute("aria-sort");
  // Names begin with A, scores with the worst.
  const first = heading.dataset.kind === "less" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = before === first ? other : first;
  const sign = order === "ascending" ? 1 : -1;
  const valueOf = (row) => row.children[column].dataset.value;
  const rows = [...table.tBodies[0].rows];
  rows.sort((left, right) => {
    const [a, b] = [valueOf(left), valueOf(right)];
    if (isText) return sign * a.localeCompare(b, "en", { numeric: true });
    if (a === "" || b === "") return (a === "") - (b === ""); // undefined ones last, either way
    return sign * (Number(a) - Number(b));
  });
  for (const th of heading.parentElement.children) th.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", order);
  table.tBodies[0].append(...rows);
}

for (const button of document.querySelectorAll("thead button"))
  button.addEventListener("click", () => sortBy(button.parentElement));
