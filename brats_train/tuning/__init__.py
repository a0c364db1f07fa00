"""`brats tune`: a search for hyper-parameters, each trial a training of its own."""
