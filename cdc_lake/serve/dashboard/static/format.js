// Values as a person reads them. What the server sent stays as it is: tables show its own text on hover.

const number = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 2 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const year = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

const NUMERIC = /^(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT|U[A-Z]*INT|DECIMAL|FLOAT|DOUBLE)/;
const TIME = /^TIMESTAMP/;

export const isNumeric = (column) => NUMERIC.test(column.type);
export const isTime = (column) => TIME.test(column.type);

export function count(value) {
  return typeof value === "number" ? number.format(value) : String(value);
}

export function cell(value, column) {
  if (value === null || value === undefined) return "";
  if (isNumeric(column)) {
    // A number that a browser would round is text, and stays it.
    const read = Number(value);
    return Number.isFinite(read) && (typeof value === "number" || String(value).length < 16) ? decimals(value, read) : String(value);
  }
  if (isTime(column)) return moment(String(value));
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function decimals(value, read) {
  const places = typeof value === "string" ? (value.split(".")[1] || "").length : undefined;
  return places === undefined ? number.format(read) : read.toLocaleString("en-GB", { minimumFractionDigits: places, maximumFractionDigits: places });
}

export function moment(text, now = new Date()) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return text;
  if (at.toDateString() === now.toDateString()) return clock.format(at);
  return `${(at.getFullYear() === now.getFullYear() ? day : year).format(at)} ${clock.format(at)}`;
}

export function whole(date) {
  return `${year.format(date)}, ${clock.format(date)}`;
}

export function age(seconds) {
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(0)} s`;
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

export function bytes(value) {
  return `${number.format(Math.round(value / 1e6))} MB`;
}
