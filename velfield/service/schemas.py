"""What requests and answers look like, for OpenAPI and for whoever reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from velfield.service.jobs import Job
from velfield.service.paint import Paint

JOB_ID = "0123456789abcdef0123456789abcdef"
State = Literal["queued", "running", "cancelling", "done", "failed", "cancelled"]


class Health(BaseModel):
    """The service is alive."""

    status: Literal["alive"] = "alive"
    version: str = Field(examples=["0.1.0"])


class Ready(BaseModel):
    """Whether the service can work, and on what it depends."""

    ready: bool
    models: bool
    state: bool
    runner: bool
    scheduler: bool


class LimitsCard(BaseModel):
    """How much a client may send."""

    upload: int = Field(description="Bytes of a cube or a catalogue that is uploaded.")
    upload_cells: int = Field(description="Cells of a cube that is uploaded.")
    table: int = Field(description="Bytes of a table of positions.")
    rows: int = Field(description="Rows of a table of positions.")
    grid: int = Field(description="Cells along the side of a parent that is painted from a catalogue.")


class ModelCard(BaseModel):
    """What a model takes, what it was trained on and what it reached."""

    name: str = Field(examples=["pretrained"])
    weights: str = Field(description="SHA-256 of its weights.")
    version: str
    inputs: dict[str, str] = Field(
        description="Kinds of input and their units.", examples=[{"number_overdensity": "1"}]
    )
    has_std: bool = Field(description="Whether it gives velocity_std.")
    context: int = Field(description="Cells around a box that it needs: the least margin of a cube or a store.")
    guide: str | None = Field(description="The velocity of linear theory that it adds to.")
    conditioned: bool = Field(description="Whether redshift and min_mass are ranges.")
    cellsize: float = Field(description="[h⁻¹Mpc]")
    cells: int = Field(description="Along a side of the boxes of its training.")
    rsd: str
    assignment: str
    cosmology: dict[str, Any]
    redshift: float | list[float] | None = Field(description="Trained at, or from and to.")
    min_mass: float | list[float] | None = Field(description="[h⁻¹M⊙] Trained at, or from and to.")
    reached: dict[str, Any] = Field(description="Measures of its validation and tests.")


class ModelCards(BaseModel):
    """All models."""

    models: list[ModelCard]


class StoreCard(BaseModel):
    """A store that may be named."""

    id: str = Field(description="For /stores/ID/query, /stores/ID/slice ….", examples=["0123456789abcdef"])
    url: str
    kind: Literal["fields", "velocity"] = Field(
        description="fields: densities, for POST /jobs, and perhaps the true velocity; velocity: what was predicted."
    )
    redshift: float | None = None
    boxsize: float | None = None
    boxes: int | None = None
    cells: int | None = None
    cellsize: float | None = None
    margin: int | None = None
    rsd: str | None = None
    min_mass: float | None = None
    periodic: bool | None = None
    changed: datetime | None = Field(None, description="When it was finished, where its file system says so.")


class StoreCards(BaseModel):
    """All stores that may be named."""

    stores: list[StoreCard]


class Fields(BaseModel):
    """What there is to look at in a job's result or a store."""

    variables: list[str] = Field(examples=[["halo_number_overdensity", "velocity", "velocity_truth"]])
    boxes: int = Field(description="All of them.")
    whole: bool = Field(
        description="Whether they fill their parent, x slowest, so that it can be looked at as a whole."
    )
    joined: bool = Field(description="Whether all are seen by one observer, or along one direction: densities join.")
    cells: int = Field(description="Along a box's side.")
    cellsize: float = Field(description="[h⁻¹Mpc]")
    boxsize: float = Field(description="Of the parent [h⁻¹Mpc].")
    redshift: float
    rsd: str
    split: list[str] = Field(description="For each box train or validation.")
    observer: list[float] | None = Field(
        description="Where the one observer is, in the parent [h⁻¹Mpc]: positions may be on the sky. Null without one."
    )
    line_of_sight: list[float] | None = Field(description="The one direction that all is seen along. Null without one.")


class OverBoxes(BaseModel):
    """A measure over boxes."""

    mean: float
    std: float | None = Field(description="Scatter from box to box; null of one box.")


class Measures(BaseModel):
    """How near velocities are to the truth, and how large each is: of a component [km/s], averaged over boxes."""

    truth: bool = Field(description="Whether the true velocity is known: without it r and rms_error are null.")
    boxes: int = Field(description="How many were asked for.")
    measured: int = Field(description="Over how many of them these are: of very many some that are spread evenly.")
    r: OverBoxes | None = Field(description="Correlation coefficient of predicted and true velocity.")
    rms_error: OverBoxes | None = Field(description="Root mean square of their difference.")
    rms_velocity: OverBoxes | None
    rms_truth: OverBoxes | None
    rms_error_bar: OverBoxes | None


class Uploaded(BaseModel):
    """A cube that was uploaded."""

    input: str = Field(description="Its name, for POST /jobs.", examples=[f"upload:{JOB_ID}"])
    cells: int = Field(description="Along a side of the box, without a margin.")


class UploadedCatalogue(BaseModel):
    """A catalogue that was uploaded."""

    input: str = Field(description="Its name, for POST /jobs.", examples=[f"upload:{JOB_ID}"])


class JobRequest(BaseModel):
    """A whole store, a catalogue, or an upload, to be predicted."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"model": "pretrained", "input": f"upload:{JOB_ID}"},
                {
                    "model": "pretrained",
                    "input": f"upload:{JOB_ID}",
                    "paint": {"redshift": 0.0, "boxsize": 900.0, "rsd": "none", "min_mass": 1e12},
                },
            ]
        },
    )

    model: str = Field(max_length=64, description="One of GET /models.")
    input: str = Field(
        max_length=1024,
        description="A URL of GET /stores or of a catalogue, or what POST /uploads or /catalogues answered.",
    )
    average: Literal[1, 8, 16, 48] = Field(1, description="Orientations whose predictions are averaged.")
    isolated: bool = Field(
        False, description="Each box by itself, also where they are one whole; uploaded cubes always are."
    )
    paint: Paint | None = Field(None, description="For a catalogue of halos, and only for one: how it is painted.")
    accept: list[Literal["implausible"]] = Field(
        default_factory=list,
        max_length=1,
        description="implausible: go on, and flag every cell, also where input or velocities cannot be right.",
    )


class JobStatus(BaseModel):
    """A job and how far it is."""

    id: str = Field(examples=[JOB_ID])
    state: State
    model: str
    input: str
    average: int
    isolated: bool
    paint: Paint | None = None
    accept: list[Literal["implausible"]] = Field(default_factory=list)
    boxes: int
    cells: int = Field(description="Along a box's side.")
    stage: str = Field(description="What is being done.", examples=["predict"])
    unit: str = Field(description="What the stage is counted in.", examples=["boxes"])
    done: int = Field(description="How many of the stage are.")
    total: int = Field(description="How many the stage has.")
    a_second: float | None = Field(description="Of the stage.")
    seconds_left: float | None = Field(description="Of the stage.")
    created: datetime
    changed: datetime
    expires: datetime | None = Field(description="When its result is removed.")
    notes: list[str] = Field(description="In what the input differs from the model's training.")
    error: str | None
    what_to_do: str | None
    result: dict[str, str] = Field(description="Where it is, once the job is done.")


class JobStatuses(BaseModel):
    """All jobs, the oldest first."""

    jobs: list[JobStatus]


def status_of(job: Job, keep: float) -> JobStatus:
    """A job as clients see it."""
    rate, over = job.rate(), job.state in ("done", "failed", "cancelled")
    at = f"/jobs/{job.id}"
    result = {"store": f"{at}/store", "npz": f"{at}/result/velocity.npz", "netcdf": f"{at}/result/velocity.nc"}
    return JobStatus(
        id=job.id,
        state=job.state,  # type: ignore[arg-type]
        model=job.model,
        input=job.input,
        average=job.average,
        isolated=job.isolated,
        paint=None if job.paint is None else Paint.model_validate(job.paint),
        accept=job.accept,  # type: ignore[arg-type]
        boxes=job.boxes,
        cells=job.cells,
        stage=job.stage,
        unit=job.unit,
        done=job.done,
        total=job.total,
        a_second=rate,
        seconds_left=None if rate is None else (job.total - job.done) / rate,
        created=datetime.fromtimestamp(job.created, UTC),
        changed=datetime.fromtimestamp(job.changed, UTC),
        expires=datetime.fromtimestamp(job.changed + keep, UTC) if over else None,
        notes=job.notes,
        error=job.error,
        what_to_do=job.what_to_do,
        result=result if job.state == "done" else {},
    )
