"""Studies: grids of methods, label conditions and seeds, of which each run is an `mlcv fit`; see `mlcv study`."""
