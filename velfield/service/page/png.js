// The pictures of a plane side by side in a PNG, dark on white, twice as fine as on the page.

import { draw, heightOf } from "./panel.js";

const WIDTH = 520; // of a picture
const INK = "#1b2126";

// panels: what `draw` takes, each with a title; said: what the plane is
export async function png(panels, said) {
  const top = 30, foot = 26, canvas = document.createElement("canvas");
  const width = WIDTH * panels.length, height = top + heightOf(WIDTH) + foot;
  canvas.width = 2 * width;
  canvas.height = 2 * height;
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  panels.forEach((picture, i) => {
    context.save();
    context.translate(i * WIDTH, top);
    draw(context, WIDTH, picture, INK);
    context.fillStyle = INK;
    context.textAlign = "left";
    context.font = "bold 15px system-ui, sans-serif";
    context.fillText(picture.title, 40, -20);
    context.restore();
  });
  context.fillStyle = INK;
  context.font = "12px system-ui, sans-serif";
  context.fillText(said, 40, height - 18);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
