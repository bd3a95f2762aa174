"use strict";
// Draws the plots, changes between light and dark, sorts the tables.
const root = document.documentElement;
// What goes wrong is written where a test (or a reader of the source) finds it.
window.addEventListener("error", (event) => { root.dataset.error = event.message; });
document.addEventListener("securitypolicyviolation", (event) => { root.dataset.error = "blocked " + event.blockedURI; });

const plots = JSON.parse(document.getElementById("data").textContent);
const shown = plots.map(() => 0);
const touch = window.matchMedia("(pointer: coarse)").matches;
const narrow = window.matchMedia("(max-width: 600px)");
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
// Colours that colour-blind people can tell apart (Okabe and Ito's), lightened for dark ground.
const colours = {
  light: ["#0072b2", "#d55e00", "#009e73", "#b5588f", "#b8860b", "#3c8dbc", "#6b6b6b", "#000000"],
  dark: ["#56b4e9", "#f0a04b", "#2bc7a0", "#e39ac7", "#f0e442", "#9ecbff", "#b8b8b8", "#ffffff"],
};

function css(name) { return getComputedStyle(root).getPropertyValue(name).trim(); }

function axis(given) {
  const line = css("--line");
  const own = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ...given };
  if (own.title) own.title = { ...own.title, standoff: 8 };
  return own;
}

function layoutOf(given) {
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: css("--text"), family: "system-ui, sans-serif", size: narrow.matches ? 11 : 13 },
    margin: { l: 10, r: 14, t: 34, b: 10 },
    colorway: colours[root.dataset.theme],
    legend: { orientation: "h", y: -0.22, yanchor: "top", x: 0 },
    hoverlabel: { bgcolor: css("--panel"), font: { color: css("--text") }, bordercolor: css("--line") },
    // On a touch screen a finger on a plot scrolls the page, until zooming is chosen above the plot.
    dragmode: touch ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--accent") },
    ...given,
  };
  for (const name of Object.keys(layout)) if (/^[xy]axis/.test(name)) layout[name] = axis(layout[name]);
  return layout;
}

function draw(number) {
  const { traces, layout } = plots[number][shown[number]];
  // Named one by one: of plotly's own choice, one button sends the data to its makers' server.
  const buttons = [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
  const config = { responsive: true, displaylogo: false, displayModeBar: touch ? true : "hover", modeBarButtons: buttons };
  // plotly writes into what it is given.
  return Plotly.react(`plot-${number}`, structuredClone(traces), layoutOf(structuredClone(layout)), config);
}

function setTheme(theme) {
  root.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "Light" : "Dark";
  return Promise.all(plots.map((_, number) => draw(number)));
}

function sortBy(button) {
  const head = button.closest("th"), table = head.closest("table");
  const column = [...head.parentNode.children].indexOf(head);
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.children) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => {
    const cell = row.children[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  const compare = (a, b) => {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  };
  const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b)) * (down ? -1 : 1));
  table.tBodies[0].append(...rows);
}

document.getElementById("theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
prefersDark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
for (const select of document.querySelectorAll("select[data-plot]")) {
  shown[select.dataset.plot] = Number(select.value);
  select.addEventListener("change", () => {
    shown[select.dataset.plot] = Number(select.value);
    draw(Number(select.dataset.plot));
  });
}
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => sortBy(button));
setTheme(prefersDark.matches ? "dark" : "light").then(() => { root.dataset.drawn = String(plots.length); });
