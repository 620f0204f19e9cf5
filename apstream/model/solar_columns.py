"""The solar-system part of the column registry: known objects, their detections and their orbits."""

from __future__ import annotations

from apstream.model.tablespec import Column, TableSpec

__all__ = ["MPC_ORBITS", "SS_OBJECT", "SS_SOURCE"]

_C = Column


SS_OBJECT = TableSpec(
    "SSObject",
    "Known solar-system objects that were seen.",
    (
        _C("ssObjectId", "i8", "", "Identifier of the solar-system object.", False),
        _C("designation", "U32", "", "Unpacked primary designation."),
        _C("nObs", "i4", "", "Number of observations.", False),
        _C("arc", "f4", "d", "Time between the first and the last observation.", False, 0.0),
        _C("firstObservationMjdTai", "f8", "d", "Time of the first observation, MJD TAI."),
        _C("MOIDEarth", "f4", "AU", "Least distance between the orbits of the object and the Earth."),
        _C("tisserand_J", "f4", "", "Tisserand parameter with respect to Jupiter."),
    ),
    ("ssObjectId",),
)

SS_SOURCE = TableSpec(
    "SSSource",
    "What is known of a detection because it is a known solar-system object.",
    (
        _C("diaSourceId", "i8", "", "Source that the row belongs to.", False),
        _C("ssObjectId", "i8", "", "Solar-system object that was matched.", False),
        _C("designation", "U32", "", "Unpacked primary designation."),
        _C("eclLambda", "f8", "deg", "Observed ecliptic longitude.", False),
        _C("eclBeta", "f8", "deg", "Observed ecliptic latitude.", False),
        _C("galLon", "f8", "deg", "Observed galactic longitude.", False),
        _C("galLat", "f8", "deg", "Observed galactic latitude.", False),
        _C("elongation", "f4", "deg", "Angle between the object and the Sun."),
        _C("phaseAngle", "f4", "deg", "Angle Sun, object, observer."),
        _C("topoRange", "f4", "AU", "Distance from the observer."),
        _C("topoRangeRate", "f4", "km / s", "Radial velocity as seen by the observer, positive outward."),
        _C("helioRange", "f4", "AU", "Distance from the Sun."),
        _C("helioRangeRate", "f4", "km / s", "Radial velocity as seen from the Sun, positive outward."),
        _C("ephRa", "f8", "deg", "Predicted right ascension."),
        _C("ephDec", "f8", "deg", "Predicted declination."),
        _C("ephVmag", "f4", "mag", "Predicted V magnitude."),
        _C("ephRate", "f4", "deg / d", "Predicted motion on the sky."),
        _C("ephRateRa", "f4", "deg / d", "Predicted motion in right ascension, times cos(dec)."),
        _C("ephRateDec", "f4", "deg / d", "Predicted motion in declination."),
        _C("ephOffset", "f4", "arcsec", "Distance between the observed and the predicted position."),
        _C("ephOffsetRa", "f8", "arcsec", "Observed minus predicted right ascension, times cos(dec)."),
        _C("ephOffsetDec", "f8", "arcsec", "Observed minus predicted declination."),
        _C("ephOffsetAlongTrack", "f4", "arcsec", "Offset along the predicted motion."),
        _C("ephOffsetCrossTrack", "f4", "arcsec", "Offset across the predicted motion."),
        _C(
            "diaDistanceRank",
            "i4",
            "",
            "1 for the source closest to the prediction, 2 for the next, and so on.",
        ),
    ),
    ("diaSourceId",),
)

MPC_ORBITS = TableSpec(
    "mpc_orbits",
    "The orbit with which a solar-system object was predicted, as the Minor Planet Center gives it.",
    (
        _C("id", "i4", "", "Row number in the orbit catalogue.", False),
        _C("designation", "U32", "", "Unpacked primary provisional designation.", False),
        _C(
            "packed_primary_provisional_designation",
            "U16",
            "",
            "Packed primary provisional designation.",
            False,
        ),
        _C("unpacked_primary_provisional_designation", "U32", "", "Same as designation.", False),
        _C("a", "f8", "AU", "Semi-major axis."),
        _C("q", "f8", "AU", "Perihelion distance."),
        _C("e", "f8", "", "Eccentricity."),
        _C("i", "f8", "deg", "Inclination."),
        _C("node", "f8", "deg", "Longitude of the ascending node."),
        _C("argperi", "f8", "deg", "Argument of perihelion."),
        _C("peri_time", "f8", "d", "Time of perihelion passage, MJD."),
        _C("mean_anomaly", "f8", "deg", "Mean anomaly at the epoch."),
        _C("epoch_mjd", "f8", "d", "Epoch of the orbit, MJD."),
        _C("h", "f8", "mag", "Absolute magnitude H."),
        _C("g", "f8", "", "Slope parameter G."),
        _C("u_param", "i4", "", "Uncertainty parameter U."),
        _C("nobs_total", "i4", "", "Number of observations known."),
        _C("arc_length_total", "f8", "d", "Arc of all observations."),
        _C("earth_moid", "f8", "AU", "Least distance between the orbits of the object and the Earth."),
    ),
    ("id",),
)
