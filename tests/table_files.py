"""Writers of the table formats that catalogues are read from, one function a format: (path, table, units) to a URL."""

import numpy as np

UNITS = {"length": "Mpc/h", "speed": "km/s", "mass": "Msun/h"}


def quantity(name):
    """Which of the units a column of HACC's names, or of ours, has."""
    if name.endswith("mass"):
        return "mass"
    return "speed" if name.rpartition("_")[2].startswith("v") else "length"


def unit_of(name, units):
    return units.get(quantity(name), "") if units else ""


def write_parquet(path, table, units=None, **options):
    import pyarrow
    import pyarrow.parquet

    fields, arrays = [], []
    for name, values in table.items():
        array = pyarrow.array(list(values)) if values.ndim > 1 else pyarrow.array(values)
        if values.ndim > 1:
            array = array.cast(pyarrow.list_(pyarrow.from_numpy_dtype(values.dtype), values.shape[1]))
        unit = unit_of(name, units)
        fields.append(pyarrow.field(name, array.type, metadata={"unit": unit} if unit else None))
        arrays.append(array)
    metadata = {"redshift": str(options.pop("redshift"))} if "redshift" in options else None
    made = pyarrow.table(arrays, schema=pyarrow.schema(fields, metadata=metadata))
    pyarrow.parquet.write_table(made, path, **options)
    return str(path)


def write_parquet_parts(path, table, units=None):
    path.mkdir()
    edges = np.linspace(0, len(next(iter(table.values()))), 4).astype(int)
    for i in range(3):
        part = {name: values[edges[i] : edges[i + 1]] for name, values in table.items()}
        write_parquet(path / f"part-{i}.parquet", part, units, row_group_size=5000)
    (path / "_SUCCESS").write_text("")
    return str(path)


def write_hdf5(path, table, units=None, group="halos", redshift=None, **options):
    import h5py

    with h5py.File(path, "w") as root:
        node = root.require_group(group)
        for name, values in table.items():
            node.create_dataset(name, data=values, **options)
            if unit := unit_of(name, units):
                node[name].attrs["unit"] = unit
        if redshift is not None:
            node.attrs["redshift"] = redshift
    return str(path)


def write_hdf5_records(path, table):
    import h5py

    dtype = [(name, v.dtype, v.shape[1:]) for name, v in table.items()]
    records = np.zeros(len(next(iter(table.values()))), dtype)
    for name, values in table.items():
        records[name] = values
    with h5py.File(path, "w") as root:
        root["catalogue"] = records
    return str(path)


OPENCOSMO_UNITS = {"length": "comoving Mpc/h", "speed": "comoving km/s", "mass": "Msun/h"}


def write_opencosmo(
    path, table, units=OPENCOSMO_UNITS, *, boxsize=512.0, redshift=0.0, h=0.71, convention="scalefree",
    kind="halo_properties", group="", lightcone=False, cosmology=None,
):  # fmt: skip
    """As the toolkit of ArgonneCPAC/OpenCosmo writes: header groups with attributes, data beneath ``data``."""
    import h5py

    with h5py.File(path, "a") as root:
        file = root.require_group("header/file")
        file.attrs.update(
            {"data_type": kind, "is_lightcone": lightcone, "redshift": redshift, "origin": "HACC", "step": 499}
        )
        if convention != "scalefree":
            file.attrs["unit_convention"] = convention
        root.require_group("header/simulation/parameters").attrs["box_size"] = boxsize
        root.require_group("header/simulation/cosmology").attrs.update(
            {"h": h, "omega_m": 0.2648, "w_0": -1.0} if cosmology is None else cosmology
        )
        data = root.require_group(f"{group}/data")
        for name, values in table.items():
            data[name] = values
            data[name].attrs["unit"] = unit_of(name, units)
            data[name].attrs["description"] = f"the {name}"
        index = root.require_group(f"{group}/index")
        index.attrs["index_type"] = "octree"
        index["level_0/start"], index["level_0/size"] = [0], [len(values)]
    return str(path)


def write_csv(path, table, units=None, delimiter=","):
    """Every value with the digits that bring it back."""
    titles = [f"{name} [{unit}]" if (unit := unit_of(name, units)) else name for name in table]
    rows = zip(*(map(repr, values.astype(float).tolist()) for values in table.values()), strict=True)
    lines = [delimiter.join(titles), *(delimiter.join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def write_fits(path, table, units=None, redshift=None):
    from astropy.io import fits

    columns = []
    for name, values in table.items():
        letter = {"f4": "E", "f8": "D", "i4": "J", "i8": "K", "i2": "I"}[values.dtype.str[1:]]
        repeat = values.shape[1] if values.ndim > 1 else ""
        columns.append(fits.Column(name, f"{repeat}{letter}", unit=unit_of(name, units) or None, array=values))
    made = fits.BinTableHDU.from_columns(columns)
    if redshift is not None:
        made.header["REDSHIFT"] = redshift
    fits.HDUList([fits.PrimaryHDU(), made]).writeto(path, overwrite=True)
    return str(path)


WRITERS = {
    "parquet": write_parquet,
    "parquet parts": write_parquet_parts,
    "hdf5": write_hdf5,
    "hdf5 records": write_hdf5_records,
    "opencosmo": write_opencosmo,
    "csv": write_csv,
    "fits": write_fits,
}
