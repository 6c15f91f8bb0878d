"""Neurons of other libraries, one file each, imported only where that library is loaded."""
