# Filled with the export rules; see docs/architecture.md.
