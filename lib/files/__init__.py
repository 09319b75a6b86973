"""Storage and file formats: tars, images, Parquet, latents, schemas."""
