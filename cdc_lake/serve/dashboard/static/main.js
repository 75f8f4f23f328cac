// The page: what the server says becomes cards; the moment, the page and what was chosen are in the address.

import { Refused, get } from "./api.js";
import { Alerts } from "./alerts.js";
import { Card } from "./card.js";
import { Chooser } from "./choose.js";
import { $, h, put } from "./dom.js";
import { age } from "./format.js";
import { Live } from "./live.js";
import { Pipeline } from "./pipeline.js";
import { Sql } from "./sql.js";
import { When } from "./when.js";

const OWN = ["Alerts", "Pipeline", "SQL"];
const STALE = 30;
const store = { state: null, documents: new Map(), pipeline: null, past: new Map(), connection: "lost" };
const cards = new Map();
let pages = [];
let current = "";
let special = {};
let asked = null;

const when = new When(() => moved());
const chooser = new Chooser(() => { address(); loadChosen(); });
const live = new Live({ data: took, connection: (state) => { store.connection = state; tell(); }, check });

function slug(name) {
  return name.toLowerCase().replace(/[^a-z0-9]+/g, "-");
}

// --- what comes in

function took(kind, document) {
  if (kind === "state") {
    const before = store.state;
    store.state = document;
    when.bounds(document.began_at, document.data_at);
    if (!before || JSON.stringify(before.views) !== JSON.stringify(document.views)) layout();
    special.SQL?.tables(document.tables);
    if (!when.at && before?.number !== document.number) loadChosen();
    tell();
  } else if (kind === "pipeline") {
    store.pipeline = document;
    special.Pipeline?.set(document);
  } else {
    store.documents.set(document.view, document);
    if (!when.at) show(document);
  }
}

function show(document) {
  cards.get(document.view)?.set(document);
  if (document.view === "alerts") special.Alerts?.set(document);
}

// --- pages

function layout() {
  const heads = store.state.views;
  const named = [...new Set(heads.map((v) => v.page))].filter((p) => !OWN.includes(p));
  pages = [...named, ...OWN].map((name) => ({ name, slug: slug(name), heads: heads.filter((v) => v.page === name) }));
  put($("nav"), pages.map((p) => h("a", { href: `#/${p.slug}`, "data-page": p.slug }, p.name, p.name === "Alerts" ? h("span", { class: "badge", id: "badge", hidden: true }) : null)));
  current = "";
  go();
}

function go() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const given = Object.fromEntries(new URLSearchParams(query || ""));
  const page = pages.find((p) => p.slug === path) || pages[0];
  if (!page) return;
  if (given.at && !Number.isNaN(Date.parse(given.at)) && when.text !== given.at) when.choose(new Date(given.at));
  Object.assign(chooser.values, Object.fromEntries(Object.entries(given).filter(([k]) => k !== "at")));
  if (page.slug === current) return;
  current = page.slug;
  for (const link of $("nav").children) {
    if (link.dataset.page === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${page.name} – cdc-lake`;
  $("heading").textContent = page.name;
  build(page);
}

function build(page) {
  cards.clear();
  special = {};
  const elements = [];
  if (page.name === "Alerts") { special.Alerts = new Alerts(when); elements.push(...special.Alerts.elements); }
  if (page.name === "Pipeline") { special.Pipeline = new Pipeline(); elements.push(...special.Pipeline.elements); if (store.pipeline) special.Pipeline.set(store.pipeline); }
  if (page.name === "SQL") { special.SQL = new Sql(when); elements.push(...special.SQL.elements); special.SQL.tables(store.state.tables); }
  for (const head of page.heads.filter((v) => v.view !== "alerts")) {
    const card = new Card(head);
    cards.set(head.view, card);
    elements.push(card.element);
  }
  if (!elements.length) elements.push(h("p", { class: "empty" }, "No view is on this page."));
  put($("page"), chooser.element, elements);
  chooser.show(page.heads, when.text).then(() => { loadChosen(); });
  const documents = when.at ? store.past : store.documents;
  for (const document of documents.values()) show(document);
}

function address() {
  const page = pages.find((p) => p.slug === current);
  const names = new Set(page?.heads.flatMap((v) => v.parameters));
  const given = new URLSearchParams();
  if (when.text) given.set("at", when.text);
  for (const [k, v] of Object.entries(chooser.values)) if (names.has(k) && v) given.set(k, v);
  const text = given.toString();
  history.replaceState(null, "", `#/${current}${text ? `?${text}` : ""}`);
}

// --- what is asked for

let again = 0;
async function loadChosen() {
  clearTimeout(again);
  const page = pages.find((p) => p.slug === current);
  for (const head of page?.heads.filter((v) => v.parameters.length) ?? []) {
    const given = new URLSearchParams();
    for (const name of head.parameters) if (chooser.values[name]) given.set(name, chooser.values[name]);
    if (when.text) given.set("at", when.text);
    try {
      const document = await get(`/api/views/${head.view}?${given}`);
      if ((document.at ?? null) === when.text) cards.get(head.view)?.set(document);
    } catch (error) {
      if (error instanceof Refused && error.status === 503) again = setTimeout(loadChosen, 1500);
      else if (error instanceof Refused) notice(error);
    }
  }
}

async function moved() {
  asked?.abort();
  address();
  tell();
  if (!when.at) {
    notice(null);
    store.past.clear();
    for (const document of store.documents.values()) show(document);
    loadChosen();
    return;
  }
  asked = new AbortController();
  document.body.classList.add("reading");
  try {
    const found = await get(`/api/state?at=${encodeURIComponent(when.text)}`, asked.signal);
    if (found.at !== when.text) return;
    store.past = new Map(found.views.map((v) => [v.view, v]));
    for (const document of found.views) show(document);
    notice(null);
    loadChosen();
  } catch (error) {
    if (error.name !== "AbortError") notice(error);
  } finally {
    document.body.classList.remove("reading");
  }
}

// The stream was refused: is it that the token is not known any more?
async function check() {
  try {
    await get("/api/session");
  } catch (error) {
    if (error instanceof Refused && error.status === 401) notice(error);
  }
}

// --- how it stands

function notice(error) {
  $("notice").hidden = !error;
  if (error) put($("notice"), h("b", {}, error.message), " ", error.why || "", " ", error.next ? h("span", {}, `→ ${error.next}`) : null);
}

function tell() {
  const { state } = store;
  const status = $("status");
  const seconds = state?.data_at ? (Date.now() - Date.parse(state.data_at)) / 1000 : null;
  let [kind, words] = ["wait", "Connecting…"];
  if (store.connection === "lost") [kind, words] = ["lost", seconds === null ? "Connecting…" : `Connection lost · data ${age(seconds)} old`];
  else if (state?.error) [kind, words] = ["lost", `The lake cannot be read: ${state.error.message}`];
  else if (when.at) [kind, words] = ["past", "The past"];
  else if (state && !state.tables.length && state.number) [kind, words] = ["wait", "Nothing has landed yet"];
  else if (seconds !== null) [kind, words] = [seconds > STALE ? "old" : "live", seconds > STALE ? `Data ${age(seconds)} old` : `Live · ${age(seconds)} ago`];
  else if (state) [kind, words] = ["live", "Live"];
  if (status.className !== `status ${kind}`) status.className = `status ${kind}`;
  if ($("status-text").textContent !== words) $("status-text").textContent = words;
  const alerts = store.documents.get("alerts");
  const badge = $("badge");
  if (alerts && badge) {
    const at = alerts.columns.findIndex((c) => c.name === "state");
    const open = alerts.rows.filter((row) => row[at] === "open").length;
    badge.hidden = !open;
    badge.textContent = String(open);
    badge.setAttribute("aria-label", `${open} open`);
  }
}

setInterval(tell, 1000);
window.addEventListener("hashchange", go);
live.open();
