"""Literature behind the measures, as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable

BIBTEX: dict[str, str] = {
    "muller1988": """@article{muller1988,
  author = {M{\\"u}ller, N. L. and Staples, C. A. and Miller, R. R. and Abboud, R. T.},
  title = {``Density mask'': an objective method to quantitate emphysema using computed tomography},
  journal = {Chest}, volume = {94}, number = {4}, pages = {782--787}, year = {1988},
  doi = {10.1378/chest.94.4.782}
}""",
    "gevenois1996": """@article{gevenois1996,
  author = {Gevenois, P. A. and de Vuyst, P. and de Maertelaer, V. and others},
  title = {Comparison of computed density and microscopic morphometry in pulmonary emphysema},
  journal = {American Journal of Respiratory and Critical Care Medicine},
  volume = {154}, number = {1}, pages = {187--192}, year = {1996}, doi = {10.1164/ajrccm.154.1.8680679}
}""",
    "copdgene2010": """@article{copdgene2010,
  author = {Regan, E. A. and Hokanson, J. E. and Murphy, J. R. and others},
  title = {Genetic epidemiology of {COPD} ({COPDGene}) study design},
  journal = {COPD}, volume = {7}, number = {1}, pages = {32--43}, year = {2010},
  doi = {10.3109/15412550903499522}
}""",
    "dirksen2009": """@article{dirksen2009,
  author = {Dirksen, A. and Piitulainen, E. and Parr, D. G. and others},
  title = {Exploring the role of {CT} densitometry: a randomised study of augmentation therapy in
           alpha1-antitrypsin deficiency},
  journal = {European Respiratory Journal}, volume = {33}, number = {6}, pages = {1345--1353},
  year = {2009}, doi = {10.1183/09031936.00159408}
}""",
    "schneider1996": """@article{schneider1996,
  author = {Schneider, U. and Pedroni, E. and Lomax, A.},
  title = {The calibration of {CT} {Hounsfield} units for radiotherapy treatment planning},
  journal = {Physics in Medicine and Biology}, volume = {41}, number = {1}, pages = {111--124},
  year = {1996}, doi = {10.1088/0031-9155/41/1/009}
}""",
    "mishima1999": """@article{mishima1999,
  author = {Mishima, M. and Hirai, T. and Itoh, H. and others},
  title = {Complexity of terminal airspace geometry assessed by lung computed tomography in normal subjects
           and patients with chronic obstructive pulmonary disease},
  journal = {Proceedings of the National Academy of Sciences}, volume = {96}, number = {16},
  pages = {8829--8834}, year = {1999}, doi = {10.1073/pnas.96.16.8829}
}""",
    "podolanczuk2016": """@article{podolanczuk2016,
  author = {Podolanczuk, A. J. and Oelsner, E. C. and Barr, R. G. and others},
  title = {High attenuation areas on chest computed tomography in community-dwelling adults: the {MESA}
           study},
  journal = {European Respiratory Journal}, volume = {48}, number = {5}, pages = {1442--1452},
  year = {2016}, doi = {10.1183/13993003.00129-2016}
}""",
    "pmc7963378": """@misc{pmc7963378,
  howpublished = {PubMed Central}, note = {PMC7963378},
  url = {https://www.ncbi.nlm.nih.gov/pmc/articles/PMC7963378/}
}""",
    "lungctanalyzer": """@misc{lungctanalyzer,
  title = {{LungCTAnalyzer} for {3D} {Slicer}}, url = {https://github.com/rbumm/SlicerLungCTAnalyzer}
}""",
    "galban2012": """@article{galban2012,
  author = {Galb{\\'a}n, C. J. and Han, M. K. and Boes, J. L. and others},
  title = {Computed tomography-based biomarker provides unique signature for diagnosis of {COPD} phenotypes
           and disease progression},
  journal = {Nature Medicine}, volume = {18}, number = {11}, pages = {1711--1715}, year = {2012},
  doi = {10.1038/nm.2971}
}""",
    "nelson2009": """@article{nelson2009,
  author = {van Klaveren, R. J. and Oudkerk, M. and Prokop, M. and others},
  title = {Management of lung nodules detected by volume {CT} scanning},
  journal = {New England Journal of Medicine}, volume = {361}, number = {23}, pages = {2221--2229},
  year = {2009}, doi = {10.1056/NEJMoa0906085}
}""",
    "pan2020": """@article{pan2020,
  author = {Pan, F. and Ye, T. and Sun, P. and others},
  title = {Time course of lung changes at chest {CT} during recovery from coronavirus disease 2019
           ({COVID-19})},
  journal = {Radiology}, volume = {295}, number = {3}, pages = {715--721}, year = {2020},
  doi = {10.1148/radiol.2020200370}
}""",
    "mirp2024": """@article{mirp2024,
  author = {Zwanenburg, A. and L{\\"o}ck, S.},
  title = {{MIRP}: A {Python} package for standardised radiomics},
  journal = {Journal of Open Source Software}, volume = {9}, number = {99}, pages = {6413}, year = {2024},
  doi = {10.21105/joss.06413}
}""",
    "ibsi2020": """@article{ibsi2020,
  author = {Zwanenburg, A. and Valli{\\`e}res, M. and Abdalah, M. A. and others},
  title = {The {Image} {Biomarker} {Standardization} {Initiative}: standardized quantitative radiomics for
           high-throughput image-based phenotyping},
  journal = {Radiology}, volume = {295}, number = {2}, pages = {328--338}, year = {2020},
  doi = {10.1148/radiol.2020191145}
}""",
}
"""Every entry by its key."""


def bibtex(keys: Iterable[str]) -> str:
    """The entries with these keys, each once, in order."""
    return "\n\n".join(BIBTEX[key] for key in dict.fromkeys(keys)) + "\n"
