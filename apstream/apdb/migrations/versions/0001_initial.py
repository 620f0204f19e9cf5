"""First tables: objects, sources, forced sources, solar-system tables, ledger, outbox, metadata.

Frozen: it says what a database of version 0001 holds, whatever the column registry has become since.
Codes: f4 f8 floats, i2 i4 i8 integers, b boolean, sN text of N characters; ``!`` means not null.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0001"
down_revision = None

_TYPES = {"f4": sa.REAL, "f8": sa.Double, "i2": sa.SmallInteger, "i4": sa.Integer, "i8": sa.BigInteger}
_COLUMNS = {
    "DiaObject": """
        diaObjectId:i8! validityStartMjdTai:f8! ra:f8! raErr:f4 dec:f8! decErr:f4 ra_dec_Cov:f4
        u_psfFluxMean:f4 u_psfFluxMeanErr:f4 u_psfFluxSigma:f4 u_psfFluxNdata:i4! u_fpFluxMean:f4
        u_fpFluxMeanErr:f4 u_scienceFluxMean:f4 u_scienceFluxMeanErr:f4 u_psfFluxMin:f4
        u_psfFluxMax:f4 u_psfFluxMaxSlope:f4 u_psfFluxErrMean:f4 g_psfFluxMean:f4
        g_psfFluxMeanErr:f4 g_psfFluxSigma:f4 g_psfFluxNdata:i4! g_fpFluxMean:f4 g_fpFluxMeanErr:f4
        g_scienceFluxMean:f4 g_scienceFluxMeanErr:f4 g_psfFluxMin:f4 g_psfFluxMax:f4
        g_psfFluxMaxSlope:f4 g_psfFluxErrMean:f4 r_psfFluxMean:f4 r_psfFluxMeanErr:f4
        r_psfFluxSigma:f4 r_psfFluxNdata:i4! r_fpFluxMean:f4 r_fpFluxMeanErr:f4 r_scienceFluxMean:f4
        r_scienceFluxMeanErr:f4 r_psfFluxMin:f4 r_psfFluxMax:f4 r_psfFluxMaxSlope:f4
        r_psfFluxErrMean:f4 i_psfFluxMean:f4 i_psfFluxMeanErr:f4 i_psfFluxSigma:f4
        i_psfFluxNdata:i4! i_fpFluxMean:f4 i_fpFluxMeanErr:f4 i_scienceFluxMean:f4
        i_scienceFluxMeanErr:f4 i_psfFluxMin:f4 i_psfFluxMax:f4 i_psfFluxMaxSlope:f4
        i_psfFluxErrMean:f4 z_psfFluxMean:f4 z_psfFluxMeanErr:f4 z_psfFluxSigma:f4
        z_psfFluxNdata:i4! z_fpFluxMean:f4 z_fpFluxMeanErr:f4 z_scienceFluxMean:f4
        z_scienceFluxMeanErr:f4 z_psfFluxMin:f4 z_psfFluxMax:f4 z_psfFluxMaxSlope:f4
        z_psfFluxErrMean:f4 y_psfFluxMean:f4 y_psfFluxMeanErr:f4 y_psfFluxSigma:f4
        y_psfFluxNdata:i4! y_fpFluxMean:f4 y_fpFluxMeanErr:f4 y_scienceFluxMean:f4
        y_scienceFluxMeanErr:f4 y_psfFluxMin:f4 y_psfFluxMax:f4 y_psfFluxMaxSlope:f4
        y_psfFluxErrMean:f4 firstDiaSourceMjdTai:f8 lastDiaSourceMjdTai:f8 nDiaSources:i4!
        pixelId:i8! validityEndMjdTai:f8
    """,
    "DiaSource": """
        diaSourceId:i8! visit:i8! detector:i2! diaObjectId:i8 ssObjectId:i8 parentDiaSourceId:i8
        midpointMjdTai:f8! exposureTime:f4 ra:f8! raErr:f4 dec:f8! decErr:f4 ra_dec_Cov:f4 x:f4!
        xErr:f4 y:f4! yErr:f4 centroid_flag:b apFlux:f4 apFluxErr:f4 apFlux_flag:b
        apFlux_flag_apertureTruncated:b isNegative:b snr:f4 psfFlux:f4 psfFluxErr:f4 psfLnL:f4
        psfChi2:f4 psfNdata:i4! psfFlux_flag:b psfFlux_flag_edge:b psfFlux_flag_noGoodPixels:b
        trailFlux:f4 trailFluxErr:f4 trailRa:f8 trailRaErr:f4 trailDec:f8 trailDecErr:f4
        trailLength:f4 trailLengthErr:f4 trailAngle:f4 trailAngleErr:f4 trailChi2:f4 trailNdata:i4!
        trailAlgorithm:i4 trail_flag_edge:b trail_flag:b dipoleMeanFlux:f4 dipoleMeanFluxErr:f4
        dipoleFluxDiff:f4 dipoleFluxDiffErr:f4 dipoleLength:f4 dipoleAngle:f4 dipoleChi2:f4
        dipoleNdata:i4! scienceFlux:f4 scienceFluxErr:f4 forced_PsfFlux_flag:b
        forced_PsfFlux_flag_edge:b forced_PsfFlux_flag_noGoodPixels:b templateFlux:f4
        templateFluxErr:f4 ixx:f4 iyy:f4 ixy:f4 ixxPSF:f4 iyyPSF:f4 ixyPSF:f4 shape_flag:b
        shape_flag_no_pixels:b shape_flag_not_contained:b shape_flag_parent_source:b extendedness:f4
        reliability:f4 reliabilityVersion:s16 band:s8 isDipole:b dipoleFitAttempted:b
        timeProcessedMjdTai:f8! timeWithdrawnMjdTai:f8 bboxSize:i4! pixelFlags:b pixelFlags_bad:b
        pixelFlags_cr:b pixelFlags_crCenter:b pixelFlags_edge:b pixelFlags_nodata:b
        pixelFlags_nodataCenter:b pixelFlags_interpolated:b pixelFlags_interpolatedCenter:b
        pixelFlags_offimage:b pixelFlags_saturated:b pixelFlags_saturatedCenter:b
        pixelFlags_suspect:b pixelFlags_suspectCenter:b pixelFlags_streak:b
        pixelFlags_streakCenter:b pixelFlags_injected:b pixelFlags_injectedCenter:b
        pixelFlags_injected_template:b pixelFlags_injected_templateCenter:b glint_trail:b
        pixelFlags_saturated_template:b pixelFlags_saturated_templateCenter:b
        pixelFlags_highVariance:b isBrightStarResidual:b pixelId:i8!
    """,
    "DiaForcedSource": """
        diaForcedSourceId:i8! diaObjectId:i8! ra:f8! dec:f8! visit:i8! detector:i2! psfFlux:f4
        psfFluxErr:f4 midpointMjdTai:f8! scienceFlux:f4 scienceFluxErr:f4 band:s8
        timeProcessedMjdTai:f8! timeWithdrawnMjdTai:f8
    """,
    "SSObject": """
        ssObjectId:i8! designation:s32 nObs:i4! arc:f4! firstObservationMjdTai:f8 MOIDEarth:f4
        tisserand_J:f4
    """,
    "SSSource": """
        diaSourceId:i8! ssObjectId:i8! designation:s32 eclLambda:f8! eclBeta:f8! galLon:f8!
        galLat:f8! elongation:f4 phaseAngle:f4 topoRange:f4 topoRangeRate:f4 helioRange:f4
        helioRangeRate:f4 ephRa:f8 ephDec:f8 ephVmag:f4 ephRate:f4 ephRateRa:f4 ephRateDec:f4
        ephOffset:f4 ephOffsetRa:f8 ephOffsetDec:f8 ephOffsetAlongTrack:f4 ephOffsetCrossTrack:f4
        diaDistanceRank:i4
    """,
}

_KEYS = {
    "DiaObject": ("diaObjectId", "validityStartMjdTai"),
    "DiaSource": ("diaSourceId",),
    "DiaForcedSource": ("diaForcedSourceId",),
    "SSObject": ("ssObjectId",),
    "SSSource": ("diaSourceId",),
}


def upgrade() -> None:
    """Make the tables."""
    for name, codes in _COLUMNS.items():
        columns = [_column(code, _KEYS[name]) for code in codes.split()]
        op.create_table(name, *columns, sa.PrimaryKeyConstraint(*_KEYS[name]))
    _index("DiaObject_latest", "DiaObject", ["diaObjectId"], '"validityEndMjdTai" IS NULL', unique=True)
    _index("DiaObject_latest_pixel", "DiaObject", ["pixelId"], '"validityEndMjdTai" IS NULL')
    op.create_index("DiaSource_object", "DiaSource", ["diaObjectId", "midpointMjdTai"])
    op.create_index("DiaSource_pixel", "DiaSource", ["pixelId"])
    op.create_index("DiaForcedSource_object", "DiaForcedSource", ["diaObjectId", "midpointMjdTai"])
    _create_service_tables()


def downgrade() -> None:
    """Drop the tables."""
    for name in (*_COLUMNS, "Ledger", "Outbox", "Metadata"):
        op.drop_table(name)


def _column(code: str, key: tuple[str, ...]) -> sa.Column[object]:
    name, kind = code.rstrip("!").split(":")
    if kind == "b":
        return sa.Column(name, sa.Boolean, nullable=not code.endswith("!"))
    chosen = sa.String(int(kind[1:])) if kind.startswith("s") else _TYPES[kind]()
    return sa.Column(name, chosen, nullable=not code.endswith("!") and name not in key, autoincrement=False)


def _index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def _exposure_key() -> tuple[sa.Column[str], sa.Column[int], sa.Column[int]]:
    return (
        sa.Column("instrument", sa.String(64), nullable=False),
        sa.Column("visit", sa.BigInteger, nullable=False),
        sa.Column("detector", sa.SmallInteger, nullable=False),
    )


def _create_service_tables() -> None:
    op.create_table(
        "Ledger",
        *_exposure_key(),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("nSources", sa.Integer, nullable=False),
        sa.Column("nAlerts", sa.Integer, nullable=False),
        sa.Column("recordedAt", sa.DateTime, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("instrument", "visit", "detector"),
    )
    op.create_table(
        "Outbox",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        *_exposure_key(),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("nAlerts", sa.Integer, nullable=False),
        sa.Column("sent", sa.Boolean, nullable=False),
        sa.UniqueConstraint("instrument", "visit", "detector", name="Outbox_exposure"),
    )
    unsent = sa.not_(sa.column("sent", sa.Boolean))
    op.create_index("Outbox_unsent", "Outbox", ["number"], sqlite_where=unsent, postgresql_where=unsent)
    op.create_table(
        "Metadata",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
