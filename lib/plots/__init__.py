"""Plots for papers and reports: functions from plain arrays to SVG and PDF."""
