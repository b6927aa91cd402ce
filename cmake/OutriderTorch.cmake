# Defines outrider::torch, the LibTorch that everything links. Installed beside the package's config too, so that a
# consumer finds its LibTorch by the same rules. Two ways, in this order:
#   1. a LibTorch on CMAKE_PREFIX_PATH or Torch_DIR (pytorch.org's archive, a wheel's folder): torch_cpu and c10 of it;
#   2. OUTRIDER_TORCH_FALLBACK, a folder: the wheel that cmake/install_dependencies.sh put into .deps/, or for a
#      consumer of an installed package, lib/outrider/libtorch of that package, a folder or a link.
# Neither needs the CUDA toolkit: LibTorch's CUDA part is opened while the program runs, when a CUDA device is asked for.
if(TARGET outrider::torch)
    return()
endif()
add_library(outrider::torch INTERFACE IMPORTED GLOBAL)

set(outrider_torch_hints ${CMAKE_PREFIX_PATH})
if(Torch_DIR)
    list(PREPEND outrider_torch_hints ${Torch_DIR}/../../..)
endif()
find_path(OUTRIDER_TORCH_INCLUDE ATen/ATen.h HINTS ${outrider_torch_hints} PATHS ${OUTRIDER_TORCH_FALLBACK}
          PATH_SUFFIXES include)
get_filename_component(OUTRIDER_TORCH_ROOT "${OUTRIDER_TORCH_INCLUDE}/.." ABSOLUTE)

# LibTorch's include folder holds the headers of its own fmt, protobuf and pybind11 too. A host that includes <fmt/...>
# must get its own, so what is put on its path is a folder with LibTorch's own headers alone.
set(outrider_torch_include ${CMAKE_CURRENT_BINARY_DIR}/outrider-libtorch-include)
foreach(folder ATen c10 torch caffe2)
    if(EXISTS ${OUTRIDER_TORCH_INCLUDE}/${folder})
        file(MAKE_DIRECTORY ${outrider_torch_include})
        file(CREATE_LINK ${OUTRIDER_TORCH_INCLUDE}/${folder} ${outrider_torch_include}/${folder} SYMBOLIC)
    endif()
endforeach()
foreach(library torch_cpu c10)
    string(TOUPPER OUTRIDER_${library} variable)
    find_library(${variable} ${library} HINTS ${OUTRIDER_TORCH_ROOT} PATH_SUFFIXES lib NO_DEFAULT_PATH)
    if(NOT OUTRIDER_TORCH_INCLUDE OR NOT ${variable})
        message(FATAL_ERROR "outrider: no LibTorch found (looked for ATen/ATen.h and lib${library}, last in "
                            "${OUTRIDER_TORCH_FALLBACK}). Pass -DCMAKE_PREFIX_PATH=/path/to/libtorch, or put one or a "
                            "link to one there. In outrider's source folder cmake/install_dependencies.sh does it")
    endif()
    add_library(outrider::${library} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(outrider::${library} PROPERTIES IMPORTED_LOCATION ${${variable}}
                          INTERFACE_INCLUDE_DIRECTORIES ${outrider_torch_include})
endforeach()
set_property(TARGET outrider::torch PROPERTY INTERFACE_LINK_LIBRARIES outrider::torch_cpu outrider::c10)

# LibTorch keeps no binary interface between minor versions.
if(EXISTS ${OUTRIDER_TORCH_INCLUDE}/torch/headeronly/version.h)
    file(STRINGS ${OUTRIDER_TORCH_INCLUDE}/torch/headeronly/version.h outrider_torch_version
         REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
    string(REGEX MATCHALL "[0-9]+" outrider_torch_version "${outrider_torch_version}")
    list(JOIN outrider_torch_version "." OUTRIDER_TORCH_VERSION)
endif()
if(OUTRIDER_TORCH_BUILT_WITH AND OUTRIDER_TORCH_VERSION AND
   NOT OUTRIDER_TORCH_BUILT_WITH STREQUAL OUTRIDER_TORCH_VERSION)
    message(FATAL_ERROR "outrider: this package was built with LibTorch ${OUTRIDER_TORCH_BUILT_WITH}, and "
                        "${OUTRIDER_TORCH_ROOT} holds ${OUTRIDER_TORCH_VERSION}. Use the same version, or build "
                        "outrider again with this one")
endif()
