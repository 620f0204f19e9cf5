"""The column registry: every table and alert record, defined once.

Names follow the public names of the Rubin APDB (schema 10) and alert packet (11.1) where the meaning is the
same; columns of our own stand last in their table and say so. Database tables (`apstream.apdb.tables`), the
Avro schema (`apstream.alerts.schema`) and ``docs/columns.md`` are made from here.

Fluxes are nJy on the difference image unless the doc says otherwise, positions ICRS degrees, times MJD TAI,
pixels 0-based. Errors of right ascension are angles on the sky: they include cos(dec).
"""

from __future__ import annotations

from apstream.model.solar_columns import MPC_ORBITS, SS_OBJECT, SS_SOURCE
from apstream.model.tablespec import Column, TableSpec

__all__ = [
    "BANDS",
    "DIA_FORCED_SOURCE",
    "DIA_OBJECT",
    "DIA_SOURCE",
    "MPC_ORBITS",
    "SS_OBJECT",
    "SS_SOURCE",
    "TABLES",
    "Column",
    "TableSpec",
]

#: The bands that have statistics of their own; a camera maps each of its filters to one of them.
BANDS = ("u", "g", "r", "i", "z", "y")

_C = Column
_BAND = _C("band", "U8", "", "Band of the exposure, one of u g r i z y.")
_PROCESSED = _C("timeProcessedMjdTai", "f8", "d", "When this row was made, MJD TAI.", False)
_WITHDRAWN = _C(
    "timeWithdrawnMjdTai", "f8", "d", "When this row was declared invalid, MJD TAI; null while it is valid."
)


def _flag(name: str, doc: str) -> Column:
    return Column(name, "?", "", doc)


_IDENTITY = (
    _C(
        "diaSourceId",
        "i8",
        "",
        "Identifier of the source: visit, detector and ordinal packed into 63 bits.",
        False,
    ),
    _C("visit", "i8", "", "Visit in which the source was measured.", False),
    _C("detector", "i2", "", "Detector on which the source was measured.", False),
    _C("diaObjectId", "i8", "", "Object that the source belongs to; null for a solar-system source."),
    _C("ssObjectId", "i8", "", "Solar-system object that the source belongs to."),
    _C("parentDiaSourceId", "i8", "", "Source from which this one was deblended."),
    _C("midpointMjdTai", "f8", "d", "Middle of the exposure, MJD TAI.", False),
    _C("exposureTime", "f4", "s", "Time that the shutter was open."),
)

_POSITION = (
    _C("ra", "f8", "deg", "Right ascension of the centroid.", False),
    _C("raErr", "f4", "deg", "Error of ra, times cos(dec)."),
    _C("dec", "f8", "deg", "Declination of the centroid.", False),
    _C("decErr", "f4", "deg", "Error of dec."),
    _C("ra_dec_Cov", "f4", "deg2", "Covariance of ra (times cos(dec)) and dec."),
    _C("x", "f4", "pixel", "Column of the centroid, 0-based, pixel centres at integers.", False),
    _C("xErr", "f4", "pixel", "Error of x."),
    _C("y", "f4", "pixel", "Row of the centroid, 0-based, pixel centres at integers.", False),
    _C("yErr", "f4", "pixel", "Error of y."),
    _flag("centroid_flag", "The centroid could not be fitted; the detection peak stands in."),
)

_APERTURE = (
    _C("apFlux", "f4", "nJy", "Flux in a circular aperture."),
    _C("apFluxErr", "f4", "nJy", "Error of apFlux."),
    _flag("apFlux_flag", "The aperture flux could not be measured."),
    _flag("apFlux_flag_apertureTruncated", "The aperture leaves the image."),
)

_PSF_FIT = (
    _flag("isNegative", "Found as a dip: fainter than in the template."),
    _C("snr", "f4", "", "Signal-to-noise ratio of the detection."),
    _C("psfFlux", "f4", "nJy", "Flux of the fitted point source; negative where the sky became fainter."),
    _C("psfFluxErr", "f4", "nJy", "Error of psfFlux."),
    _C("psfLnL", "f4", "", "Log likelihood of the pixels under the point-source fit."),
    _C("psfChi2", "f4", "", "Chi-squared of the point-source fit."),
    _C("psfNdata", "i4", "", "Pixels used in the point-source fit.", False),
    _flag("psfFlux_flag", "The point-source fit failed."),
    _flag("psfFlux_flag_edge", "The PSF leaves the image."),
    _flag("psfFlux_flag_noGoodPixels", "Too few good pixels for the point-source fit."),
)

_TRAIL = (
    _C("trailFlux", "f4", "nJy", "Flux of the fitted trail."),
    _C("trailFluxErr", "f4", "nJy", "Error of trailFlux."),
    _C("trailRa", "f8", "deg", "Right ascension of the middle of the trail."),
    _C("trailRaErr", "f4", "deg", "Error of trailRa, times cos(dec)."),
    _C("trailDec", "f8", "deg", "Declination of the middle of the trail."),
    _C("trailDecErr", "f4", "deg", "Error of trailDec."),
    _C("trailLength", "f4", "arcsec", "Length of the trail."),
    _C("trailLengthErr", "f4", "arcsec", "Error of trailLength."),
    _C("trailAngle", "f4", "deg", "Bearing of the trail, from north through east."),
    _C("trailAngleErr", "f4", "deg", "Error of trailAngle."),
    _C("trailChi2", "f4", "", "Chi-squared of the trail fit."),
    _C("trailNdata", "i4", "", "Pixels used in the trail fit; 0 where none was tried.", False),
    _C("trailAlgorithm", "i4", "", "Number of the method that gave the trail."),
    _flag("trail_flag_edge", "The trail reaches the edge of the image."),
    _flag("trail_flag", "The trail could not be fitted."),
)

_DIPOLE = (
    _C("dipoleMeanFlux", "f4", "nJy", "Mean of the absolute fluxes of the two lobes."),
    _C("dipoleMeanFluxErr", "f4", "nJy", "Error of dipoleMeanFlux."),
    _C("dipoleFluxDiff", "f4", "nJy", "Difference of the absolute fluxes of the two lobes."),
    _C("dipoleFluxDiffErr", "f4", "nJy", "Error of dipoleFluxDiff."),
    _C("dipoleLength", "f4", "arcsec", "Distance between the lobes."),
    _C("dipoleAngle", "f4", "deg", "Bearing from the negative to the positive lobe, from north through east."),
    _C("dipoleChi2", "f4", "", "Chi-squared of the dipole fit."),
    _C("dipoleNdata", "i4", "", "Pixels used in the dipole fit; 0 where none was tried.", False),
)

_DIRECT = (
    _C("scienceFlux", "f4", "nJy", "Point-source flux on the science image at this position."),
    _C("scienceFluxErr", "f4", "nJy", "Error of scienceFlux."),
    _flag("forced_PsfFlux_flag", "The flux on the science image could not be measured."),
    _flag("forced_PsfFlux_flag_edge", "On the science image the PSF leaves the image."),
    _flag("forced_PsfFlux_flag_noGoodPixels", "On the science image too few pixels are good."),
    _C("templateFlux", "f4", "nJy", "Point-source flux on the template at this position."),
    _C("templateFluxErr", "f4", "nJy", "Error of templateFlux."),
)

_SHAPE = (
    _C("ixx", "f4", "arcsec2", "Weighted second moment along x."),
    _C("iyy", "f4", "arcsec2", "Weighted second moment along y."),
    _C("ixy", "f4", "arcsec2", "Weighted mixed second moment."),
    _C("ixxPSF", "f4", "arcsec2", "Second moment of the PSF along x."),
    _C("iyyPSF", "f4", "arcsec2", "Second moment of the PSF along y."),
    _C("ixyPSF", "f4", "arcsec2", "Mixed second moment of the PSF."),
    _flag("shape_flag", "The moments could not be measured."),
    _flag("shape_flag_no_pixels", "There were no pixels to measure moments on."),
    _flag("shape_flag_not_contained", "The centre of the moments left the footprint."),
    _flag("shape_flag_parent_source", "The moments are those of a blend."),
    _C("extendedness", "f4", "", "0 for a point source, 1 for an extended one."),
    _C("reliability", "f4", "", "Probability that the source is astrophysical."),
    _C("reliabilityVersion", "U16", "", "Model that gave reliability."),
    _BAND,
    _flag("isDipole", "Better described by a dipole than by a point source."),
    _flag("dipoleFitAttempted", "A dipole was fitted."),
    _PROCESSED,
    _WITHDRAWN,
    _C("bboxSize", "i4", "pixel", "Side of the square around the footprint.", False),
)

_IN, _AT = "Among the pixels of the footprint there is ", "The central pixels touch "
_PIXEL_FLAGS = (
    _flag("pixelFlags", "The pixels have a problem that another flag names."),
    _flag("pixelFlags_bad", _IN + "a defective one."),
    _flag("pixelFlags_cr", _IN + "one hit by a cosmic ray."),
    _flag("pixelFlags_crCenter", _AT + "a cosmic ray."),
    _flag("pixelFlags_edge", _IN + "one too close to the edge to be searched."),
    _flag("pixelFlags_nodata", _IN + "one without data."),
    _flag("pixelFlags_nodataCenter", _AT + "a pixel without data."),
    _flag("pixelFlags_interpolated", _IN + "one whose value was interpolated."),
    _flag("pixelFlags_interpolatedCenter", _AT + "an interpolated pixel."),
    _flag("pixelFlags_offimage", "The centroid is outside the image."),
    _flag("pixelFlags_saturated", _IN + "a saturated one."),
    _flag("pixelFlags_saturatedCenter", _AT + "a saturated pixel."),
    _flag("pixelFlags_suspect", _IN + "one of doubtful linearity."),
    _flag("pixelFlags_suspectCenter", _AT + "a pixel of doubtful linearity."),
    _flag("pixelFlags_streak", _IN + "one under a satellite streak."),
    _flag("pixelFlags_streakCenter", _AT + "a satellite streak."),
    _flag("pixelFlags_injected", _IN + "one with a synthetic source."),
    _flag("pixelFlags_injectedCenter", _AT + "a synthetic source."),
    _flag("pixelFlags_injected_template", _IN + "one with a synthetic source in the template."),
    _flag("pixelFlags_injected_templateCenter", _AT + "a synthetic source of the template."),
    _flag("glint_trail", "One of a row of glints left by a tumbling object."),
)

_OWN = (
    _flag("pixelFlags_saturated_template", _IN + "one saturated in the template (apstream's own)."),
    _flag("pixelFlags_saturated_templateCenter", _AT + "a pixel saturated in the template (apstream's own)."),
    _flag("pixelFlags_highVariance", _IN + "one with much template noise (apstream's own)."),
    _flag("isBrightStarResidual", "Probably what a bright star left behind (apstream's own)."),
)

DIA_SOURCE = TableSpec(
    "DiaSource",
    "Detections on difference images.",
    (
        *_IDENTITY,
        *_POSITION,
        *_APERTURE,
        *_PSF_FIT,
        *_TRAIL,
        *_DIPOLE,
        *_DIRECT,
        *_SHAPE,
        *_PIXEL_FLAGS,
        *_OWN,
    ),
    ("diaSourceId",),
)

DIA_FORCED_SOURCE = TableSpec(
    "DiaForcedSource",
    "Point-source fluxes at the positions of known objects, detected or not.",
    (
        _C("diaForcedSourceId", "i8", "", "Identifier of the measurement.", False),
        _C("diaObjectId", "i8", "", "Object at whose position the flux was measured.", False),
        _C("ra", "f8", "deg", "Right ascension of the position.", False),
        _C("dec", "f8", "deg", "Declination of the position.", False),
        _C("visit", "i8", "", "Visit of the measurement.", False),
        _C("detector", "i2", "", "Detector of the measurement.", False),
        _C("psfFlux", "f4", "nJy", "Point-source flux on the difference image."),
        _C("psfFluxErr", "f4", "nJy", "Error of psfFlux."),
        _C("midpointMjdTai", "f8", "d", "Middle of the exposure, MJD TAI.", False),
        _C("scienceFlux", "f4", "nJy", "Point-source flux on the science image."),
        _C("scienceFluxErr", "f4", "nJy", "Error of scienceFlux."),
        _BAND,
        _PROCESSED,
        _WITHDRAWN,
    ),
    ("diaForcedSourceId",),
)


def _band_columns(b: str) -> tuple[Column, ...]:
    return (
        _C(f"{b}_psfFluxMean", "f4", "nJy", f"Weighted mean of psfFlux in {b}."),
        _C(f"{b}_psfFluxMeanErr", "f4", "nJy", f"Error of {b}_psfFluxMean."),
        _C(f"{b}_psfFluxSigma", "f4", "nJy", f"Standard deviation of psfFlux in {b}."),
        _C(f"{b}_psfFluxNdata", "i4", "", f"Number of psfFlux values in {b}.", False),
        _C(f"{b}_fpFluxMean", "f4", "nJy", f"Weighted mean of the forced psfFlux in {b}."),
        _C(f"{b}_fpFluxMeanErr", "f4", "nJy", f"Error of {b}_fpFluxMean."),
        _C(f"{b}_scienceFluxMean", "f4", "nJy", f"Weighted mean of scienceFlux in {b}."),
        _C(f"{b}_scienceFluxMeanErr", "f4", "nJy", f"Error of {b}_scienceFluxMean."),
        _C(f"{b}_psfFluxMin", "f4", "nJy", f"Smallest psfFlux in {b}."),
        _C(f"{b}_psfFluxMax", "f4", "nJy", f"Largest psfFlux in {b}."),
        _C(
            f"{b}_psfFluxMaxSlope",
            "f4",
            "nJy / d",
            f"Largest rise of psfFlux per day between neighbours in time in {b}.",
        ),
        _C(f"{b}_psfFluxErrMean", "f4", "nJy", f"Mean of psfFluxErr in {b}."),
    )


DIA_OBJECT = TableSpec(
    "DiaObject",
    "Places on the sky where something changed; one row per version.",
    (
        _C("diaObjectId", "i8", "", "Identifier of the object: the id of its first source.", False),
        _C("validityStartMjdTai", "f8", "d", "When this version came to be, MJD TAI.", False),
        _C("ra", "f8", "deg", "Weighted mean right ascension of the sources.", False),
        _C("raErr", "f4", "deg", "Error of ra, times cos(dec)."),
        _C("dec", "f8", "deg", "Weighted mean declination of the sources.", False),
        _C("decErr", "f4", "deg", "Error of dec."),
        _C("ra_dec_Cov", "f4", "deg2", "Covariance of ra (times cos(dec)) and dec."),
        *(column for band in BANDS for column in _band_columns(band)),
        _C("firstDiaSourceMjdTai", "f8", "d", "Time of the first source, MJD TAI."),
        _C("lastDiaSourceMjdTai", "f8", "d", "Time of the last source, MJD TAI."),
        _C("nDiaSources", "i4", "", "Number of sources of the object.", False),
    ),
    ("diaObjectId", "validityStartMjdTai"),
)

#: All tables of the registry by name.
TABLES = {t.name: t for t in (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE, SS_OBJECT, SS_SOURCE, MPC_ORBITS)}
