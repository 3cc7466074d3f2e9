import numpy as np
import pandas as pd

from birdlib import sites


def at(*places):
    return pd.DataFrame(places, columns=["latitude", "longitude"], dtype=float)


def test_recordings_are_of_one_site_within_so_many_kilometres_by_hand():
    # A degree of latitude is 111.19 km; of longitude at 60 degrees north, half of that.
    table = at((60, 10), (60.008, 10), (60.05, 10), (60, 10.016), (60, 10), (0, 0))
    found = sites.of(table, 1.0)
    assert found[0] == found[1] == found[3] == found[4]
    assert found[0] != found[2]
    assert found.nunique() == 3


def test_chains_are_one_site():
    table = at(*((10 + 0.008 * step, 76) for step in range(6)))  # 0.89 km from one to the next
    assert sites.of(table, 1.0).nunique() == 1
    assert sites.of(table, 0.8).nunique() == 6


def test_the_date_line_and_the_poles_are_no_borders():
    assert sites.of(at((0, 179.999), (0, -179.999)), 1.0).nunique() == 1
    assert sites.of(at((89.999, 0), (89.999, 180)), 1.0).nunique() == 1


def test_an_unknown_place_is_shared_with_none():
    found = sites.of(at((10, 76), (np.nan, 76), (10, np.nan), (10, 76)), 5.0)
    assert found.isna().tolist() == [False, True, True, False]
    assert sites.of(at((np.nan, np.nan)), 5.0).isna().all()


def test_no_two_sites_are_nearer_than_that():
    rng = np.random.default_rng(0)
    table = at(*zip(rng.uniform(10, 10.3, 150), rng.uniform(76, 76.3, 150), strict=True))
    found = sites.of(table, 2.0).to_numpy()
    latitude, longitude = np.radians(table.to_numpy().T)
    across = np.sin((latitude[:, None] - latitude) / 2) ** 2
    across = across + np.cos(latitude[:, None]) * np.cos(latitude) * np.sin((longitude[:, None] - longitude) / 2) ** 2
    km = 2 * sites.EARTH_KM * np.arcsin(np.sqrt(across))  # haversine
    other = found[:, None] != found
    assert km[other].min() >= 2.0
    assert 1 < len(set(found)) < 150
    near = (km < 2.0) & ~np.eye(150, dtype=bool)
    assert (~other)[near].all()
