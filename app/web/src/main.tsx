import { render } from "preact";
import { App } from "./App";
import { loadFacts, openLink } from "./data/session";
import { applyTheme } from "./theme";
import "./style.css";
import "./cells.css";

applyTheme();
void loadFacts();
render(<App />, document.getElementById("app")!);
void openLink();
window.addEventListener("hashchange", () => void openLink());
