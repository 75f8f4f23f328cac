// Lines and bars over time or categories, drawn by uPlot; a legend with the newest values, and a twin as a table elsewhere.

import uPlot from "./uplot.js";
import { h, put } from "./dom.js";
import { count, isTime, moment } from "./format.js";

const HEIGHT = 240;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Rows as columns: x, then one array per series, in the order in which they come.
export function pivot(document) {
  const at = (name) => document.columns.findIndex((c) => c.name === name);
  const [x, y, s] = [at(document.x), at(document.y), document.series ? at(document.series) : -1];
  if (x < 0 || y < 0) return null;
  const time = isTime(document.columns[x]);
  const names = [];
  const values = new Map();
  for (const row of document.rows) {
    const name = s < 0 ? document.y : String(row[s]);
    if (!names.includes(name)) names.push(name);
    const key = time ? Date.parse(row[x]) / 1000 : row[x];
    if (!values.has(key)) values.set(key, new Map());
    values.get(key).set(name, row[y] === null ? null : Number(row[y]));
  }
  const keys = [...values.keys()];
  if (time) keys.sort((a, b) => a - b);
  const data = [time ? keys : keys.map((_, i) => i), ...names.map((n) => keys.map((k) => values.get(k).get(n) ?? null))];
  return { time, names, keys, data };
}

// Ticks of time: the hour, and the day where it changes or no hours are shown.
function hours(ticks) {
  let day = "";
  return ticks.map((t) => {
    const at = new Date(t * 1000);
    const date = at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    const time = at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(ticks[1] - ticks[0] < 60 ? { second: "2-digit" } : {}) });
    const fresh = date !== day;
    day = date;
    return ticks[1] - ticks[0] >= 86400 ? date : fresh ? `${time}\n${date}` : time;
  });
}

export class Plot {
  constructor() {
    this.legend = h("ul", { class: "legend" });
    this.box = h("div", { class: "plot", role: "img" });
    this.element = h("div", {}, this.legend, this.box);
    this.chart = null;
    this.watcher = new ResizeObserver(() => this.chart?.setSize(this.size()));
    this.watcher.observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.drawn = null; if (this.document) this.set(this.document); });
  }

  size() {
    return { width: Math.max(200, this.box.clientWidth), height: HEIGHT };
  }

  set(document) {
    this.document = document;
    const found = pivot(document);
    if (!found || !found.keys.length) {
      this.chart?.destroy();
      this.chart = this.drawn = null;
      put(this.legend);
      put(this.box, h("p", { class: "empty" }, found ? "Nothing here." : `The view has no columns ${document.x} and ${document.y}.`));
      return;
    }
    this.found = found;
    this.box.setAttribute("aria-label", this.words(document, found));
    const form = [found.time, document.kind, ...found.names].join("\u0000");
    if (this.chart && this.drawn === form) this.chart.setData(found.data);
    else this.draw(document, found, form);
    this.name(found, found.keys.length - 1);
  }

  words(document, { names, data }) {
    const newest = names.map((n, i) => `${n} ${count(data[i + 1].at(-1) ?? 0)}`).join(", ");
    return `${document.title}: ${data[0].length} points; the newest: ${newest} ${document.unit}. The table below has all values.`;
  }

  draw(document, found, form) {
    this.chart?.destroy();
    put(this.box);
    this.drawn = form;
    const [ink, grid] = [colour("--soft"), colour("--line")];
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const bars = document.kind === "bar";
    const series = found.names.map((name, i) => ({
      label: name,
      stroke: colour(`--s${(i % 6) + 1}`),
      width: 2,
      fill: bars || i === 0 ? colour(`--s${(i % 6) + 1}-fill`) : undefined,
      paths: bars ? uPlot.paths.bars({ size: [0.7, 60] }) : document.kind === "step" ? uPlot.paths.stepped({ align: 1 }) : undefined,
      points: { show: found.keys.length < 2 },
    }));
    const labels = found.time ? { values: (_u, ticks) => hours(ticks) } : { values: (_u, ticks) => ticks.map((t) => (Number.isInteger(t) ? String(found.keys[t] ?? "") : "")) };
    const options = {
      ...this.size(),
      padding: [10, 22, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      scales: { x: { time: found.time }, y: { range: (_u, low, high) => [Math.min(0, low ?? 0), (high || 1) * 1.1] } },
      axes: [{ ...axis, ...labels }, { ...axis, size: 52, values: (_u, ticks) => ticks.map((t) => count(t)) }],
      series: [{}, ...series],
      hooks: { setCursor: [(u) => this.name(this.found, u.cursor.idx ?? this.found.keys.length - 1)] },
    };
    this.chart = new uPlot(options, found.data, this.box);
  }

  name(found, index) {
    const when = found.time ? moment(new Date(found.keys[index] * 1000).toISOString()) : String(found.keys[index]);
    put(this.legend, h("li", { class: "when-at" }, when), found.names.map((name, i) => h("li", {}, h("span", { class: `swatch s${(i % 6) + 1}`, "aria-hidden": "true" }), `${name} `, h("b", {}, count(found.data[i + 1][index] ?? 0)))));
  }
}
