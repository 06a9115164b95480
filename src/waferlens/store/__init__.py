"""Results of inspections: one database, SQLite in the run's folder or PostgreSQL by URL."""
