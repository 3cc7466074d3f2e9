"""Which recordings were made at one place: what `splits.group_by=place` keeps on one side."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

EARTH_KM = 6371.0


def of(recordings: pd.DataFrame, within_km: float) -> pd.Series:
    """The site of each recording, text (indexed like `recordings`), missing where its place is not known.

    Two recordings less than `within_km` apart are of one site, and so are those that a chain of such steps connects: no
    two recordings of different sites are nearer than that.

    Parameters
    ----------
    recordings : latitude and longitude in degrees.
    """
    found = pd.Series(None, index=recordings.index, dtype=object)
    known = recordings[["latitude", "longitude"]].notna().all(axis=1)
    if not known.any():
        return found
    points, which = np.unique(
        recordings.loc[known, ["latitude", "longitude"]].to_numpy(float), axis=0, return_inverse=True
    )
    latitude, longitude = np.radians(points).T
    on_sphere = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )
    chord = 2 * np.sin(min(within_km / EARTH_KM, np.pi) / 2)
    near = cKDTree(on_sphere).query_pairs(chord, output_type="ndarray")
    graph = coo_array((np.ones(len(near), np.int8), tuple(near.T)), shape=(len(points), len(points)))
    site = connected_components(graph, directed=False)[1]
    found[known] = [f"site {number}" for number in site[which.ravel()]]
    return found
