// What part of a store is looked at: the whole parent, or one of its boxes. Cells of the parent, boxes, [h⁻¹Mpc].

export const AXES = ["x", "y", "z"];

export class Place {
  // about: what the service says of the store; box: null for the whole parent
  constructor(about, box) {
    Object.assign(this, { about, box });
    this.along = about.whole ? Math.round(Math.cbrt(about.boxes)) : 1; // boxes along a side of the parent
  }

  get whole() {
    return this.box === null;
  }

  // Whether there are boxes to choose from.
  get divided() {
    return this.whole && this.along > 1;
  }

  get ngrid() {
    return this.whole ? this.along * this.about.cells : this.about.cells;
  }

  get side() {
    return this.ngrid * this.about.cellsize;
  }

  // First cell in the parent; of a box that is not part of one, of the box itself.
  corner() {
    if (this.whole || !this.about.whole) return [0, 0, 0];
    const { along, box } = this;
    return [Math.floor(box / along ** 2), Math.floor(box / along) % along, box % along].map((at) => at * this.about.cells);
  }

  // The box that holds a cell of the parent.
  boxAt(cell) {
    const [i, j, k] = cell.map((at) => Math.floor(at / this.about.cells));
    return (i * this.along + j) * this.along + k;
  }

  // For a position in a whole parent [h⁻¹Mpc], which goes on around the edges: the box to look at, null as long as it is
  // the parent that is looked at, and the cell there that holds it.
  holding(position) {
    const { boxsize, cells, cellsize } = this.about;
    const cell = position.map((at) => Math.min(this.along * cells - 1, Math.floor((((at % boxsize) + boxsize) % boxsize) / cellsize)));
    return this.whole ? { box: null, cell } : { box: this.boxAt(cell), cell: cell.map((at) => at % cells) };
  }

  // For a query of the service.
  get query() {
    return this.whole ? "" : `&box=${this.box}`;
  }

  // What a pixel stands for, and of what, in words.
  words(step) {
    const { about } = this, size = `${Number((step * about.cellsize).toPrecision(4))} h⁻¹Mpc`;
    const part = this.divided ? `All ${about.boxes} boxes side by side` : about.boxes > 1 ? `Box ${this.box} of ${about.boxes}` : "One box";
    const seams = this.divided && !about.joined ? " Each is seen by an observer of its own, so densities do not join." : "";
    return `${part}.${seams} ${step === 1 ? `A pixel is a cell of ${size}.` : `A pixel is the mean of ${step} × ${step} cells, ${size} wide.`}`;
  }
}
