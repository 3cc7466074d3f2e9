"""What every group of settings has in common, and the kinds of numbers in them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A group of settings: immutable, and closed to names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ranges_are_the_right_way_round(self) -> Section:
        for name, low in self:
            if name.startswith("min_") and low > (high := getattr(self, "max_" + name[4:], low)):
                raise ValueError(f"{type(self).__name__}: {name}={low} is more than max_{name[4:]}={high}")
        return self
