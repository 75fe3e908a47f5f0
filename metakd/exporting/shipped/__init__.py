"""What a bundle ships beside its graphs: NumPy, Pillow and a runtime, no torch, nothing of MetaKD.

`metakd/exporting/copied.py` copies these files, and those of `metakd/data` that decode pictures,
into the bundle's folder `kit`; MetaKD itself runs bundles with the same sessions.
"""
