/* SPDX-FileCopyrightText: 2026 The orbit.imaging authors
 * SPDX-License-Identifier: GPL-3.0-or-later */
"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const all = (what, where) => [...(where || document).querySelectorAll(what)];
  const list = at("rows"), rows = all(".row", list), tip = at("tip");
  const find = at("find"), only = at("only"), sort = at("sort"), count = at("count");
  const cells = all(".grid a"), groups = all("[data-group]").map((row) => row.textContent);
  const scale = Number(document.body.dataset.seconds || 0) / 1000;
  const words = { b: "boots the memory image", h: "waits for its group", w: "is written", d: "boots its new disk",
    x: "failed", s: "" };
  const texts = rows.map((row) => `${row.textContent} ${groups[row.dataset.g] || ""}`.toLowerCase());
  const seen = () => rows.filter((row) => !row.hidden);
  const order = new Map(rows.map((row, place) => [row, place]));

  /* One tab stop for many things; arrows go on from there. */
  const stop = (things, one) => things.forEach((thing) => thing.setAttribute("tabindex", thing === one ? 0 : -1));

  const filter = () => {
    const wanted = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, place) => {
      const fits = only.value === "" || row.dataset.o === only.value ||
        (only.value === "!" && row.classList.contains("f"));
      row.hidden = !fits || !wanted.every((word) => texts[place].includes(word));
    });
    cells.forEach((cell) => {
      const row = at(cell.getAttribute("href").slice(1));
      cell.classList.toggle("dim", row !== null && row.hidden);
    });
    count.textContent = `${seen().length} of ${rows.length} nodes`;
    const inner = rows.find((row) => row.tabIndex === 0);
    if (!inner || inner.hidden) stop(rows, seen()[0]);
  };

  const arrange = () => {
    const key = sort.value;
    const value = (row) => (key === "" ? order.get(row) : key === "name" ? row.dataset.name : row.dataset[key]);
    const number = key !== "name" && key !== "o";
    [...rows].sort((a, b) => {
      const one = value(a), two = value(b);
      const less = number ? Number(one) - Number(two) : one.localeCompare(two, "en", { numeric: true });
      return (number && key !== "" ? -less : less) || order.get(a) - order.get(b);
    }).forEach((row) => list.append(row));
    stop(rows, all(".row", list).find((row) => !row.hidden));
  };

  const about = (row) => {
    const lines = [row.dataset.name + ": " + (row.dataset.o || ""), groups[row.dataset.g] || ""];
    all("rect", row).forEach((bar) => {
      const from = bar.x.baseVal.value * scale, to = from + bar.width.baseVal.value * scale;
      const kind = bar.classList[0];
      lines.push(`${from.toFixed(1)} to ${to.toFixed(1)} s  ${words[kind] || ""}${bar.dataset.c ? ": " + bar.dataset.c : ""}`);
    });
    return lines.map((line) => line.replace(/\s+/g, " ").trim()).filter(Boolean).join("\n");
  };
  const show = (row, box) => {
    tip.textContent = about(row);
    tip.hidden = false;
    const left = Math.min(box.left + 12, innerWidth - tip.offsetWidth - 8);
    const below = box.bottom + 6, above = box.top - tip.offsetHeight - 6;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${below + tip.offsetHeight < innerHeight || above < 0 ? below : above}px`;
  };
  const hide = () => { tip.hidden = true; };
  const rowOf = (thing) => {
    const cell = thing.closest(".grid a");
    return cell ? at(cell.getAttribute("href").slice(1)) : thing.closest(".row");
  };
  for (const [come, go] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    document.addEventListener(come, (event) => {
      const thing = event.target.closest && event.target.closest(".row, .grid a");
      const row = thing && rowOf(thing);
      if (row && scale) show(row, thing.getBoundingClientRect());
    });
    document.addEventListener(go, hide);
  }

  const step = { ArrowDown: 1, ArrowUp: -1, ArrowRight: 1, ArrowLeft: -1, Home: -1e9, End: 1e9 };
  const open = () => {
    const aim = at(decodeURIComponent(location.hash.slice(1)));
    if (!aim) return;
    if (aim.hidden) { find.value = only.value = ""; filter(); }
    if (aim.tagName === "DETAILS") { aim.open = true; aim.firstElementChild.focus(); }
    else if (aim.classList.contains("row")) { stop(rows, aim); aim.focus(); }
  };
  addEventListener("hashchange", open);
  document.addEventListener("click", (event) => {
    /* The same place once more is no change of it. */
    const link = event.target.closest && event.target.closest("a[href^='#']");
    if (link && link.getAttribute("href") === location.hash) open();
  });
  document.addEventListener("keydown", (event) => {
    const active = document.activeElement, typing = /^(INPUT|SELECT|TEXTAREA)$/.test(active.tagName);
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape") {
      if (active === find) { find.value = ""; filter(); }
      hide();
    } else if (event.key === "/" && !typing) {
      find.focus();
    } else if (event.key === "Enter" && active.classList.contains("row")) {
      const link = active.querySelector("a");
      if (link) link.click();
    } else if (active.classList.contains("row") && event.key in step && !/Left|Right/.test(event.key)) {
      const shown = all(".row", list).filter((row) => !row.hidden);
      const next = shown[Math.max(0, Math.min(shown.length - 1, shown.indexOf(active) + step[event.key]))];
      stop(rows, next);
      next.focus();
    } else if (cells.includes(active) && event.key in step) {
      const place = (cell) => { const use = cell.querySelector("use"); return [+use.getAttribute("x"), +use.getAttribute("y")]; };
      const [x, y] = place(active), across = /Left|Right|Home|End/.test(event.key), way = Math.sign(step[event.key]);
      const same = all("a", active.closest("svg")).map((cell) => [cell, ...place(cell)])
        .filter(([, cx, cy]) => (across ? cy === y && (cx - x) * way > 0 : cx === x && (cy - y) * way > 0));
      same.sort((a, b) => (across ? a[1] - b[1] : a[2] - b[2]) * way);
      const next = /Home|End/.test(event.key) ? same[same.length - 1] : same[0];
      if (next) { stop(cells, next[0]); next[0].focus(); }
    } else {
      return;
    }
    event.preventDefault();
  });

  find.addEventListener("input", filter);
  only.addEventListener("change", filter);
  sort.addEventListener("change", arrange);
  stop(cells, cells[0]);
  stop(rows, rows[0]);
  at("tools").hidden = false;
  filter();
  open();
})();
