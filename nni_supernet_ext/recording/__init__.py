"""Show a training and a search in NNI's web page: records in the experiment's own database."""

from nni_supernet_ext.recording.axes import sample_from_parameters, search_axes, subnet_parameters
from nni_supernet_ext.recording.destination import open_recording
from nni_supernet_ext.recording.export import ExportedSubnet, read_export
from nni_supernet_ext.recording.record import ExperimentRecord, RecordedTrial
from nni_supernet_ext.recording.recording import NoRecording, Recording
from nni_supernet_ext.recording.writer import BatchWriter

__all__ = [
    "BatchWriter",
    "ExperimentRecord",
    "ExportedSubnet",
    "NoRecording",
    "RecordedTrial",
    "Recording",
    "open_recording",
    "read_export",
    "sample_from_parameters",
    "search_axes",
    "subnet_parameters",
]
