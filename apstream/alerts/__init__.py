"""PURE records and bytes: alert schema, packing, codec."""
