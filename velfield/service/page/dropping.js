// Files that are dropped anywhere on the page, with a frame around it as long as one is held over it.

const holds = (event) => event.dataTransfer?.types.includes("Files");
const own = (event) => event.target.closest?.("input[type=file]"); // takes what is dropped on it by itself

// frame: what is shown meanwhile; taken(files, where): what was dropped, and on which element
export function dropping(frame, taken) {
  const show = (shown) => (frame.hidden = !shown);
  window.addEventListener("dragenter", (event) => {
    if (!holds(event)) return;
    event.preventDefault();
    show(true);
  });
  window.addEventListener("dragover", (event) => {
    if (!holds(event) || own(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) show(false); // out of the window
  });
  window.addEventListener("dragend", () => show(false));
  window.addEventListener("drop", (event) => {
    show(false);
    if (!holds(event) || own(event)) return;
    event.preventDefault();
    taken(event.dataTransfer.files, event.target);
  });
}
