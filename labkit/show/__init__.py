"""How a thing looks: text and HTML of frozen records; reads no kernel state."""

from labkit.show.cgroups import cgroup_tree
from labkit.show.changes import cell_report, difference, operations
from labkit.show.comparison import comparison_json, comparison_page, comparison_view
from labkit.show.contents import contents_view
from labkit.show.course import Chapter, LabOnMap, course_map, next_lab
from labkit.show.image import image_tree
from labkit.show.layers import changes_view, file_view, layers_view, settings_view
from labkit.show.namespaces import namespace_table
from labkit.show.network import network_picture
from labkit.show.notices import finding, notice
from labkit.show.packet_path import frames_view, path_view
from labkit.show.parts import parts_view
from labkit.show.processes import process_table
from labkit.show.sandboxes import sandbox_table
from labkit.show.sequence import sequence
from labkit.show.tables import table
from labkit.show.union import union_stack
from labkit.show.view import View, stack
from labkit.show.xray import xray_page, xray_table, xray_view, xray_views
from labkit.show.xray_json import to_json

__all__ = [
    "Chapter",
    "LabOnMap",
    "View",
    "cell_report",
    "cgroup_tree",
    "changes_view",
    "comparison_json",
    "comparison_page",
    "comparison_view",
    "contents_view",
    "course_map",
    "difference",
    "file_view",
    "finding",
    "frames_view",
    "image_tree",
    "layers_view",
    "namespace_table",
    "network_picture",
    "next_lab",
    "notice",
    "operations",
    "parts_view",
    "path_view",
    "process_table",
    "sandbox_table",
    "sequence",
    "settings_view",
    "stack",
    "table",
    "to_json",
    "union_stack",
    "xray_page",
    "xray_table",
    "xray_view",
    "xray_views",
]
