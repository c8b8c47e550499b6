"""What researchers take out of runs and show: results over seeds, comparisons, tables and pages."""
