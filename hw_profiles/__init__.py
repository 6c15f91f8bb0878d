"""One TOML file per chip; SOURCES.md says where every number comes from. Data only."""
