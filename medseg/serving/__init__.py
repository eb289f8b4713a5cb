"""A server of models that speaks MONAI Label's protocol, for 3D Slicer and the ``monailabel`` client.

``server`` is the call: it loads the models (``loaded_models``) and runs ``application`` with the user's
``settings``. ``access_control`` decides who may ask, ``uploads`` receives files within ``limits``, and
``case_queue`` segments one case at a time. ``data_folder`` holds the scans, ``submissions`` the corrected
labels, ``next_sample`` chooses the case to annotate next, ``background_training`` fine-tunes a model.
"""
