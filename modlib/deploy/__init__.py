"""Networks made small and fast, and shipped to where this package is not installed.

`slicing`    channels cut out of any network that Torch-Pruning can trace
`repair`     what is left learns in closed form to give what its parent gave
`measuring`  parameters and multiply-adds
"""
