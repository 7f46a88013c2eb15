"""A run as text, tables, pages, figures and files. Judges nothing: the analysis does."""
