"""``apstream coadd``: templates from raws, calexps or warps."""

from __future__ import annotations

from typing import Any

from apstream.cli import making


@making.command
def coadd(given: making.Given) -> None:
    """Make template coadds of the selected exposures.

    Raws without a calexp are calibrated first: on the reference catalogue where the repository has one, else
    by registration on one of them. One bad exposure is reported and left out.

    apstream coadd REPO --id 'visit=1..10 filter=r' makes all patches that these exposures touch;
    apstream coadd REPO --id 'tract=0 patch=1^2 filter=r' --select-id 'visit=1..10' only these two.

    Warps are convolved to one common PSF, a little wider than the widest exposure's; -c warp_type=direct combines
    them as they are, -c match.target_fwhm_arcsec=1.2 sets the width. -c select.max_fwhm_arcsec=1.1 and its sisters
    choose among the exposures.
    """
    from apstream.service.coadd import coadd_stored_warps, make_coadds
    from apstream.service.coadd_settings import CoaddSettings

    def make(products: Any, selected: Any, chosen: CoaddSettings, how: Any) -> Any:
        if given.origin == "warp":
            return coadd_stored_warps(products, chosen, how)
        return make_coadds(products, selected, chosen, how)

    making.make_patches("coadd", given, CoaddSettings, make)
