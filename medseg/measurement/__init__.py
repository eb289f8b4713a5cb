"""Numbers about what a mask holds: lung densitometry by region, shape, lesions, and whether the scan is fit.

`scan_measurement` is the call, `measures` the table of densitometric measures, `regions` the parts of a lung,
`low_attenuation_clusters` and `erosion` what a histogram cannot say, `structures` every other label.
Nothing here imports torch or MONAI.
"""
