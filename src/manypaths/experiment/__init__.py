"""Which objective, on this model and data? Methods x seeds of ordinary runs, with the controls a comparison needs."""
