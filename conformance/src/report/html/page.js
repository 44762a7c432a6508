"use strict";
(() => {
  const form = document.getElementById("filter");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const off = (element, hide) => element.classList.toggle("off", hide);
  form.hidden = false;

  const rows = all(".matrix tr.item").map((row) => ({
    row, text: row.querySelector("th").textContent.toLowerCase(), cells: all("td", row),
  }));
  const articles = all("#evidence article").map((article) => ({
    article, text: article.querySelector("h3").textContent.toLowerCase(),
    cases: all(".case", article).map((element) => ({ element, text: null })),
  }));
  const said = (entry) => (entry.text ??= entry.element.textContent.toLowerCase());

  function apply() {
    const data = new FormData(form);
    const verdicts = new Set(data.getAll("verdict"));
    const known = !form.elements.known || data.has("known");
    const plugin = data.get("plugin") || "";
    const suite = data.get("suite") || "";
    const words = (data.get("text") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const column = (d) => (!plugin || d.p === plugin) && (!suite || d.s === undefined || d.s === suite);
    const wanted = (element) => column(element.dataset) && verdicts.has(element.dataset.v)
      && (known || !element.classList.contains("known"));

    let shown = 0;
    const byText = new Set();
    for (const { article, text, cases } of articles) {
      let visible = 0;
      for (const entry of cases) {
        const hit = words.every((word) => text.includes(word) || said(entry).includes(word));
        const show = wanted(entry.element) && hit;
        off(entry.element, !show);
        visible += show;
        if (hit) byText.add(article.id);
      }
      off(article, !visible);
      shown += visible;
    }
    for (const { row, text, cells } of rows) {
      const id = row.querySelector("b").textContent;
      const hit = words.every((word) => text.includes(word)) || (words.length && byText.has(id));
      off(row, !(hit && cells.some(wanted)));
    }
    for (const section of all(".matrix tbody")) off(section, !section.querySelector("tr.item:not(.off)"));
    for (const element of all(".matrix td, .matrix thead th[data-s], .summary tr[data-p]")) off(element, !column(element.dataset));
    for (const head of all(".matrix thead th[colspan]")) {
      off(head, Boolean(plugin) && head.dataset.p !== plugin);
      const same = all(`.matrix thead th[data-s]`).filter((th) => th.dataset.p === head.dataset.p && !th.classList.contains("off"));
      if (same.length) head.colSpan = same.length;
    }
    for (const group of all(".summary tbody")) {
      const lines = all("tr", group);
      const visible = lines.filter((line) => !line.classList.contains("off"));
      const name = group.querySelector("th");
      off(group, !visible.length);
      if (visible.length) { visible[0].prepend(name); name.rowSpan = visible.length; }
    }
    const total = rows.filter(({ row }) => !row.classList.contains("off")).length;
    form.querySelector("output").textContent = `${total} items, ${shown} findings`;
  }

  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  }

  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", reveal);
  const measure = () => document.documentElement.style.setProperty("--bar", `${form.offsetHeight}px`);
  addEventListener("resize", measure);

  for (const button of all(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("pre");
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
  measure();
  apply();
  reveal();
})();
