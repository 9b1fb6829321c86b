"use strict";
// Reads values out of the charts, by pointer and by arrow keys. The charts stand without it.
for (const area of document.querySelectorAll(".area")) {
  const { x, at, rows } = JSON.parse(area.dataset.readings);
  const cross = area.querySelector(".cross"), tip = area.querySelector(".tip");
  let current = -1;

  const hide = () => { current = -1; cross.hidden = tip.hidden = true; };

  const child = (parent, name, text) => {
    const made = document.createElement(name);
    made.textContent = text;
    parent.append(made);
    return made;
  };

  const show = (index) => {
    if (index < 0 || index >= x.length || index === current) return;
    current = index;
    cross.style.left = `${100 * x[index]}%`;
    tip.replaceChildren();
    child(tip, "b", at[index]);
    for (const [name, style, values] of rows) {
      if (values[index] === null) continue;
      const row = child(tip, "span", "");
      child(row, "i", "").className = `s${style}`;
      child(row, "span", name);
      child(row, "em", values[index]);
    }
    cross.hidden = tip.hidden = false;
    const room = area.clientWidth, beside = x[index] * room;
    const left = x[index] < 0.5 ? beside + 10 : beside - tip.offsetWidth - 10;
    tip.style.left = `${Math.max(0, Math.min(left, room - tip.offsetWidth))}px`;
  };

  const nearest = (share) => {
    let best = 0;
    for (let index = 1; index < x.length; index++) {
      if (Math.abs(x[index] - share) < Math.abs(x[best] - share)) best = index;
    }
    return best;
  };

  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    if (x.length) show(nearest((event.clientX - box.left) / box.width));
  });
  area.addEventListener("pointerleave", hide);
  area.addEventListener("blur", hide);
  area.addEventListener("keydown", (event) => {
    const last = x.length - 1;
    const to = { ArrowLeft: Math.max(current - 1, 0), ArrowRight: Math.min(current + 1, last), Home: 0, End: last }[event.key];
    if (event.key === "Escape") hide();
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
}
document.documentElement.dataset.charts = String(document.querySelectorAll(".area svg").length);
