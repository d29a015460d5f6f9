"""The Dask jobs: what runs many boxes on many workers. The physics is in velfield."""
