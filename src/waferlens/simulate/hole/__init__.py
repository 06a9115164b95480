"""Etched holes under a scanning electron microscope: geometry, electron signal, picture, data set, audit."""
