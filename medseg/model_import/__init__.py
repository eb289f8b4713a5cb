"""Models of other tools as model files of medseg: nnU-Net v2, TotalSegmentator, lungmask, MONAI.

``model_import`` is the call, ``model_sources`` finds training folders in folders and archives, ``checkpoint``
reads their weights, ``pickled_values`` what else is in them, without running anything; ``nnunet_plans`` and
``nnunet_model`` know nnU-Net's files, ``lungmask_model`` lungmask's; ``bundle_config``,
``bundle_networks`` and ``bundle_model`` know bundles of MONAI.
"""
